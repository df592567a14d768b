"""onnxruntime-genai as an engine: graphs and devices that our own engine does not run. From outside, `library` is used."""
