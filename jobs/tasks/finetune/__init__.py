"""What tuning and distilling are made of: examples as tokens, a trainer that stops and comes back, and what comes of it.

From outside, `material`, `parameters`, `rendering` and `trainer` are used.
"""
