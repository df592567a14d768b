"""Models in memory: tokens in, tokens out. Knows nothing of HTTP and nothing of SQL."""
