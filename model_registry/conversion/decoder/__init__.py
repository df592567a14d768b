"""The decoder that slmops writes: the network's shape, its matrices, the ONNX graph, and the configuration beside it."""
