"""Olive's ModelBuilder pass as a builder: the same graph as the model builder's own, made by a workflow of one pass."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from jobs.task import JobFailure, Stopped
from jobs.tasks.convert.builder_options import BuildOrder
from jobs.tasks.vendors.olive import import_olive
from model_registry.progress import Progress

_TARGETS = {
    "cpu": ("cpu", "CPUExecutionProvider"),
    "cuda": ("gpu", "CUDAExecutionProvider"),
    "dml": ("gpu", "DmlExecutionProvider"),
    "webgpu": ("gpu", "WebGpuExecutionProvider"),
    "NvTensorRtRtx": ("gpu", "NvTensorRTRTXExecutionProvider"),
}


def workflow(checkpoint: Path, scratch: Path, order: BuildOrder) -> dict[str, Any]:
    """The workflow of the build. It targets no particular device."""
    device, provider = _TARGETS[order.provider]
    target = {"type": "LocalSystem", "accelerators": [{"device": device, "execution_providers": [provider]}]}
    built = {"type": "ModelBuilder", "precision": str(order.precision), "extra_options": dict(order.extra)}
    return {
        "input_model": {"type": "HfModel", "model_path": str(checkpoint), "load_kwargs": {"trust_remote_code": False}},
        "systems": {"target": target},
        "target": "target",
        "passes": {"builder": built},
        "output_dir": str(scratch / "output"),
        "cache_dir": str(scratch / "cache"),
    }


def build(checkpoint: Path, folder: Path, scratch: Path, order: BuildOrder, progress: Progress) -> None:
    """Has the contract of the model builder's `build`. Raises JobFailure for failures inside Olive."""
    progress.stage("loading Olive")
    olive = import_olive(scratch / "builder")
    progress.stage("building the graph")
    try:
        output = olive.run(workflow(checkpoint, scratch, order))
    except (Stopped, MemoryError, ImportError):
        raise
    except Exception as error:
        why = next(iter(str(error).strip().splitlines()), "no reason")
        message = f"Olive failed with {type(error).__name__}: {why}. The job's log has the details."
        raise JobFailure(message, code="olive_failed") from error
    if not output.has_output_model():
        raise JobFailure("Olive made no model; the job's log has the reason.", code="olive_failed")
    for file in (scratch / "output").iterdir():
        shutil.move(file, folder / file.name)
