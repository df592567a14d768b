"""The gateway: HTTP, OpenAI's wire shapes, keys, limits, metric names; and the command line. No tensors, no SQL."""
