"""Runtimes behind one protocol: something that takes requests and, step by step, gives their tokens.

onnx      our own continuous batching on ONNX Runtime
genai     onnxruntime-genai: graphs and devices that our own engine does not run
foundry   Foundry Local's sessions, through its SDK
fake      our own engine around a scripted model, with no weights: deterministic, for tests and `--engine fake`
"""
