"""Stages with their numbers, from a task's process to the job's progress."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest

from jobs.messages import FromChild, Staged
from jobs.reporter import FrameReporter
from model_registry.progress import unit_of
from runtime.protocol.framing import FrameWriter, read_frame


def test_a_stage_that_is_not_declared_is_a_part_of_the_one_before(tmp_path: Path) -> None:
    written = io.BytesIO()
    reporter = FrameReporter(FrameWriter(written), tmp_path)
    reporter.stages = ("fetching", "training")
    for name in ("looking up", "fetching", "downloading x", "training"):
        reporter.stage(name)
    written.seek(0)
    decoder = msgspec.msgpack.Decoder(FromChild)
    found = [decoder.decode(body) for body in iter(lambda: read_frame(written), None)]
    assert [(each.name, each.number, each.total) for each in found if isinstance(each, Staged)] == [
        ("looking up", None, 2),
        ("fetching", 1, 2),
        ("downloading x", 1, 2),
        ("training", 2, 2),
    ]


@pytest.mark.parametrize(
    ("stage", "unit"), [("downloading x.gguf", "bytes"), ("unpacking x", "bytes"), ("writing weights", "parts")]
)
def test_what_a_stage_of_the_registry_counts(stage: str, unit: str) -> None:
    assert unit_of(stage) == unit
