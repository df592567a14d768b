"""A tokenizer as a model's, byte-level BPE of a paragraph: the vocabulary is small, what it does is the same."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from runtime.text.tokenizer import ModelTokenizer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[TOOL_CALLS]"]
EOS_IDS = {0, 2}
PARAGRAPH = """
{"name": "Ada Lovelace", "city": "London", "born": 1815, "notes": ["the first programmer", "the analytical engine"]}
{"name": "Alan Turing", "city": "London", "born": 1912, "notes": ["the machine", "the name of the city", "the test"]}
<tool_call> {"name": "get_weather", "arguments": {"city": "Paris"}} </tool_call> the weather in the city of Paris is fine.
"""


def small_tokenizer(folder: Path, *, num_tokens: int = 400) -> ModelTokenizer:
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False)
    inner.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(vocab_size=num_tokens, special_tokens=SPECIAL, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    inner.train_from_iterator([PARAGRAPH] * 4, trainer)
    inner.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    path = folder / "tokenizer.json"
    inner.save(str(path))
    return ModelTokenizer(path)
