"""Text in, tokens out, and back: tokenizers, chat templates, formats of model families, forms of answers.

The gateway uses `formats` alone; jobs also use `chat_prompts`, `preparation` and `tokenizer`.
"""
