"""The fixture that imports tiny GGUF files."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_registry.conversion.formats.gguf.importer import GgufImporter
from model_registry.conversion.importer import ImportOptions
from model_registry.progress import SilentProgress
from model_registry.records import Precision
from tests.doubles.tiny_gguf import ImportedFolder, ImportTiny, Tiny, write_gguf


@pytest.fixture
def import_tiny(tmp_path: Path) -> ImportTiny:
    """Write a Tiny and import it; `measure` is off by default."""

    def run(tiny: Tiny, precision: Precision = Precision.FP32, *, measure: bool = False) -> ImportedFolder:
        source = write_gguf(tmp_path / "tiny.gguf", tiny)
        folder = tmp_path / "imported"
        folder.mkdir()
        imported = GgufImporter().run(source, folder, ImportOptions(precision, measure), SilentProgress())
        return ImportedFolder(source, folder, imported)

    return run
