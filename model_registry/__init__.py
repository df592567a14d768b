"""Models on disk: which bits are which. Knows nothing of HTTP, processes or inference.

Owns the registry database and the content-addressed files beside it. The lowest layer: imports none of the others.
"""
