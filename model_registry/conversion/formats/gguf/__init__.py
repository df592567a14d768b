"""GGUF files. From outside, `importer.GgufImporter` and `reader.open_gguf` are used."""
