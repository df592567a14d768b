"""Our own engine on ONNX Runtime: decoders with GroupQueryAttention, on the CPU provider.

From outside, `engine` is used, and `adapters` for what can be attached.
"""
