"""onnxruntime-genai's model builder: a checkpoint as a folder that onnxruntime-genai loads.

Owns its call and the parsing of its output.

It prints what it does, which goes to the job's log and becomes progress here.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from jobs.task import JobFailure, Stopped
from jobs.tasks.convert.builder_options import BuildOrder
from jobs.tasks.vendors.hugging_face import be_offline
from model_registry.errors import UnsupportedModel
from model_registry.progress import Progress

_LAYER = re.compile(r"Reading (?:decoder )?layer (\d+)")


def build(checkpoint: Path, folder: Path, scratch: Path, order: BuildOrder, progress: Progress) -> None:
    """Writes model.onnx, its data, genai_config.json and the tokenizer into `folder`, which exists. scratch: for its own files.

    Raises UnsupportedModel for architectures that it does not know, JobFailure for what fails inside it.
    """
    be_offline()
    progress.stage("loading the model builder")
    from onnxruntime_genai.models import builder

    texts = [f"{name}={value}" for name, value in order.extra.items()]
    places = (None, str(checkpoint), str(folder), str(order.precision), order.provider, str(scratch))
    progress.stage("building the graph")
    output: Any = _BuilderOutput(progress, _num_layers(checkpoint))
    try:
        with contextlib.redirect_stdout(output):
            options = builder.parse_extra_options(*places, texts)
            builder.create_model(*places, **options)
    except Exception as error:
        raise _as_job_error(error, checkpoint) from error


class _BuilderOutput(io.TextIOBase):
    """A stream that passes lines on to the log; those that name a layer are reported as progress."""

    def __init__(self, progress: Progress, num_layers: int | None) -> None:
        super().__init__()
        self._progress = progress
        self._num_layers = num_layers

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        sys.stderr.write(text)
        if match := _LAYER.search(text):
            self._progress.update(int(match[1]) + 1, self._num_layers)
        return len(text)


def _num_layers(checkpoint: Path) -> int | None:
    number = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("num_hidden_layers")
    return number if isinstance(number, int) else None


def _as_job_error(error: Exception, checkpoint: Path) -> Exception:
    """The builder's exception as an error of a job; an exception that is not the builder's is returned unchanged."""
    if isinstance(error, Stopped | MemoryError | ImportError) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return error
    if isinstance(error, NotImplementedError):
        kind = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("architectures")
        return UnsupportedModel(f"onnxruntime-genai's model builder does not build {kind or checkpoint.name} this way: {error}")
    message = f"The model builder failed with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'}."
    return JobFailure(f"{message} The job's log has the details; try another precision or other options.", code="builder_failed")
