"""A home with a tiny model, to be quantized."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.kept_homes import KeptHomes
from tests.doubles.tiny_gguf import Tiny

TEMPLATE = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, kept_homes: KeptHomes) -> Path:
    tiny = Tiny(context=512, metadata={"tokenizer.chat_template": TEMPLATE})
    return kept_homes.tiny(tmp_path_factory.mktemp("quantize") / "home", tiny=tiny)
