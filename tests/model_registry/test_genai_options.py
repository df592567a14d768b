"""Options of a genai_config.json: numbers and switches pass, what runs code or names files is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_registry.conversion.formats.onnx.genai_config import check_options
from model_registry.errors import UnsupportedModel
from model_registry.pull import pull
from model_registry.registry import Registry
from tests.doubles.registry_graphs import genai_config, write_genai_folder


def config(**session: Any) -> dict[str, Any]:
    return {"model": {"decoder": {"session_options": session}}}


@pytest.mark.parametrize(
    "session",
    [
        {"custom_ops_library": "tokenizer.model"},
        {"custom_ops_library": "1"},
        {"enable_profiling": "/tmp/profile"},
        {"enable_profiling": True},
        {"ep.context_file_path": "written.onnx"},
        {"session.model_external_initializers_file_folder_path": "/"},
        {"provider_options": [{"QNN": {"backend_path": "/tmp/evil.so"}}]},
        {"provider_options": [{"cpu": {}}, {"QNN": {"backend_path": "..\\evil.dll"}}]},
    ],
    ids=str,
)
def test_what_reaches_beyond_the_model_is_refused(session: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match="may run code or use files"):
        check_options(config(**session))


def test_sections_of_options_are_looked_at_wherever_they_stand() -> None:
    for hidden in ({"model": {"draft": [config(enable_profiling="x")]}}, {"model": {"decoder": {"run_options": {"a": "/b"}}}}):
        with pytest.raises(UnsupportedModel):
            check_options(hidden)


@pytest.mark.parametrize(
    "session",
    [
        {},
        {"log_id": "onnxruntime-genai", "provider_options": []},
        {"graph_optimization_level": "ORT_ENABLE_ALL", "intra_op_num_threads": 2, "enable_mem_pattern": False},
        {"ep.share_ep_contexts": "1", "session.disable_cpu_ep_fallback": "1"},
        {"provider_options": [{"cuda": {"enable_cuda_graph": "0"}}]},
        {"provider_options": [{"qnn": {"backend_path": "QnnHtp.dll", "htp_performance_mode": "burst", "soc_model": "60"}}]},
    ],
    ids=str,
)
def test_what_published_models_say_is_accepted(session: dict[str, Any]) -> None:
    check_options(config(**session))


def test_a_model_that_brings_a_library_is_not_published(tmp_path: Path, registry: Registry) -> None:
    source = write_genai_folder(tmp_path / "source")
    (source / "tokenizer.model").write_bytes(b"\x7fELF")
    bad = genai_config()
    bad["model"]["decoder"]["session_options"]["custom_ops_library"] = "tokenizer.model"
    (source / "genai_config.json").write_text(json.dumps(bad))
    with pytest.raises(UnsupportedModel, match="custom_ops_library"):
        pull(registry, str(source))
    assert registry.models() == ()
