"""The options of a `genai_config.json` that reach beyond the model: refused, since they run code or name files. Pure.

onnxruntime-genai loads the shared library that `custom_ops_library` names, writes a profile where `enable_profiling` says, and
hands every other text on to ONNX Runtime and to providers, some of whose options are paths of files and of libraries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from model_registry.errors import UnsupportedModel

_CARRIERS = frozenset({"session_options", "run_options"})
_REFUSED = frozenset({"custom_ops_library", "enable_profiling"})
_WORDS = frozenset({"log_id", "graph_optimization_level"})  # options of a session whose text is no switch
_SWITCH = re.compile(r"\d{1,9}|true|false|enable|disable|on|off", re.IGNORECASE | re.ASCII)
_NO_PATH = re.compile(r"[^/\\\0]*")


def check_options(config: Any) -> None:
    """Of a whole `genai_config.json`. Raises UnsupportedModel by the option's name."""
    for options in _carried(config):
        for name, value in options.items():
            if name == "provider_options":
                _check_providers(value)
            elif name in _REFUSED or (isinstance(value, str) and name not in _WORDS and not _SWITCH.fullmatch(value)):
                raise _reaching(name, value)


def _carried(config: Any) -> Iterator[dict[str, Any]]:
    """Every section of options, wherever it stands."""
    pending = [config]
    while pending:
        section = pending.pop()
        if isinstance(section, list):
            pending.extend(section)
        elif isinstance(section, dict):
            for name, value in section.items():
                if name in _CARRIERS and isinstance(value, dict):
                    yield value
                pending.append(value)


def _check_providers(listed: Any) -> None:
    """Their values may be bare names, which are looked for among the machine's own libraries, but no paths."""
    for provider in listed if isinstance(listed, list) else ():
        for options in provider.values() if isinstance(provider, dict) else ():
            for name, value in options.items() if isinstance(options, dict) else ():
                if isinstance(value, str) and not _NO_PATH.fullmatch(value):
                    raise _reaching(name, value)


def _reaching(name: str, value: Any) -> UnsupportedModel:
    return UnsupportedModel(
        f"genai_config.json has the option {name[:100]!r} with {str(value)[:200]!r}, which may run code or use files that are not "
        "the model's. Options of a model may be numbers and switches only. Choose another build of the model, or remove the option."
    )
