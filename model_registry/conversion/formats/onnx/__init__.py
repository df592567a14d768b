"""Folders with a finished ONNX graph, which are checked and copied. From outside, `importer` and `genai_config` are used."""
