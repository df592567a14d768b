"""From a request that a dialect has read to a stream of events: what its name means, a lease on the model, who observes it.

Dialects and routes use `gateway`, `request`, `resolution` and `inference`; the composition root puts the rest together.
"""
