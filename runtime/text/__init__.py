"""Text in, tokens out, and back: tokenizers, chat templates, formats of model families, forms of answers."""
