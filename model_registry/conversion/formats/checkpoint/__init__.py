"""Hugging Face checkpoints: `importer` reads them, `writer` writes one from another format's weights."""
