"""Ways of converting that need training libraries, beside the registry's own importers.

From outside, `built` and `pickles` are used.
"""
