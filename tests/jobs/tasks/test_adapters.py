"""Adapters are read as data: what would have PEFT import modules is refused before PEFT is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.tasks.checkpoints import merged
from model_registry.errors import UnsupportedModel
from tests.doubles.peft_folder import random_matrices, write_peft


def test_an_adapter_that_names_modules_is_refused(tmp_path: Path) -> None:
    adapter = write_peft(tmp_path / "adapter", random_matrices({"v_proj": (32, 64)}, layers=2, rank=2, seed=1), alpha=4)
    config = adapter / "adapter_config.json"
    named = {"megatron_config": {"x": 1}, "megatron_core": "evil"}
    config.write_text(json.dumps(json.loads(config.read_text()) | named))
    with pytest.raises(UnsupportedModel, match="names modules to import"):
        merged(tmp_path / "none", adapter)
