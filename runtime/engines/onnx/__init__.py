"""Our own engine on ONNX Runtime: decoders with GroupQueryAttention, on the CPU provider."""
