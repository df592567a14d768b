"""Olive imported so that it reports nothing, fetches nothing, and its ModelBuilder pass fits onnxruntime-genai 0.18.

Olive's own switch (OLIVE_DISABLE_TELEMETRY) comes too late: release 0.13 makes a device's id, writes both to the user's cache, and
sends a first event before it looks at the variable. So its one telemetry object is made here, without a logger.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

from jobs.tasks.vendors.hugging_face import be_offline
from model_registry.telemetry import turn_off_telemetry

EXTRA = "pip install 'slmops[olive]'"
_FORMER = "int4_"  # the builder's options had it in their names, and still have in Olive's


def import_olive(scratch: Path) -> Any:
    """The package `olive`. scratch: where its builder puts what it needs for a while."""
    turn_off_telemetry()
    be_offline()
    from olive.telemetry.telemetry import Telemetry

    silent = object.__new__(Telemetry)
    silent._logger = silent._cache_handler = None
    silent._initialized = True
    Telemetry._instance = silent
    import olive

    _fit_the_builder(scratch)
    return olive


def _fit_the_builder(scratch: Path) -> None:
    """Olive 0.13 patches a module of the builder that 0.18 has no more, and calls it without the details that 0.18 wants first."""
    from olive.passes.onnx import model_builder
    from onnxruntime_genai.models import builder

    create = builder.create_model
    if getattr(create, "fits_olive", False):
        return

    @wraps(create)
    def create_model(model_name: Any, input_path: str, output_dir: str, *further: Any, **given: Any) -> None:
        if further:  # from the builder's other callers; Olive names these
            create(model_name, input_path, output_dir, *further, **given)
            return
        precision, provider, cache_dir = (given.pop(name) for name in ("precision", "execution_provider", "cache_dir"))
        places = (model_name, input_path, output_dir, precision, provider, cache_dir)
        options = {key.removeprefix(_FORMER): value for key, value in given.items()}
        options.setdefault("hf_token", "false")
        options.setdefault("hf_remote", "false")  # it would run the code of a model's folder
        builder.check_extra_options(*places, options)
        create(*places, **options)

    create_model.fits_olive = True  # type: ignore[attr-defined]
    builder.create_model = create_model
    model_builder.ModelBuilder.maybe_patch_quant = staticmethod(lambda: None)
    model_builder.HF_HUB_CACHE = str(scratch)
