"""Runtimes behind one protocol: something that takes requests and, step by step, gives their tokens.

    onnx   our own continuous batching on ONNX Runtime
    fake   the same engine around a scripted model, with no weights: deterministic, for tests and `--engine fake`
"""
