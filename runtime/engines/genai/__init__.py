"""onnxruntime-genai as an engine: graphs and devices that ours does not run."""
