"""A model's folder as Foundry Local gets it: links to its files, and a configuration of our own.

Foundry Local takes chat messages only and renders them by the model's template. Here the template gives the message back as it is,
so that the text is rendered in our sandbox, or not at all. Knows nothing of the SDK.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_registry.conversion.formats.onnx.genai_config import check_options
from model_registry.disk import link_or_copy
from runtime.engines.model_folder import ModelFolder

VERBATIM = "{{ messages[0].content }}"
PREFILL_CHUNK = 256  # tokens computed at a time: a long prompt at once would need logits of all its positions
_OURS = ("genai_config.json", "tokenizer_config.json", "chat_template.jinja")


def write_foundry_folder(model: ModelFolder, target: Path, *, context_length: int, threads: int) -> None:
    """Makes `target`; the model's own folder stays as it is. The model will run on the CPU, whatever it was made for.

    Raises UnsupportedModel for options that reach beyond the model.
    """
    config = _read(model.path / "genai_config.json")
    check_options(config)
    target.mkdir(parents=True)
    for source in model.path.rglob("*"):
        if source.is_file() and source.relative_to(model.path).as_posix() not in _OURS:
            _link(source, target / source.relative_to(model.path))
    config["model"]["context_length"] = context_length
    session = config["model"]["decoder"].setdefault("session_options", {})
    session |= {"intra_op_num_threads": threads, "provider_options": []}
    search = config.setdefault("search", {})
    search |= {"max_length": context_length, "repetition_penalty": model.defaults.repetition_penalty}
    search.setdefault("chunk_size", PREFILL_CHUNK)
    tokenizer = _read(model.path / "tokenizer_config.json")
    tokenizer |= {"chat_template": VERBATIM, "add_bos_token": False, "add_eos_token": False}
    _write(target / "genai_config.json", config)
    _write(target / "tokenizer_config.json", tokenizer)


def _link(source: Path, target: Path) -> None:
    """A symbolic link, which works across file systems; where those are not allowed (Windows), a hard link or a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source.resolve())
    except OSError:
        link_or_copy(source, target)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
