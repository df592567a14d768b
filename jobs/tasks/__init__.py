"""The tasks themselves, a file or a folder per kind. Heavy libraries are imported inside functions, in a task's own process.

The composition root names `kinds`. Beside it, the server uses `finetune.parameters`, `evaluate.metrics` and `benchmark.load`.
"""
