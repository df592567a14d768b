"""Models of Foundry Local's catalog, through its SDK; those in its cache need neither the SDK nor the network.

What is fetched is an onnxruntime-genai folder with readable files, so it is imported like any other: a version of its own, with
checksums, served by the engine that suits its graph, Foundry's among them. Nothing points into Foundry's cache afterwards.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from model_registry.errors import CorruptModel, SourceUnavailable
from model_registry.progress import DOWNLOADING, Progress
from model_registry.references import FoundryReference
from model_registry.sources.foundry_cache import (
    CACHE_VARIABLE,
    FoundryVariant,
    cache_folder,
    cached_variants,
    choose,
    device_in,
    is_model_id,
)
from model_registry.sources.protocol import Fetched, FetchSize, licence_of

if TYPE_CHECKING:
    from foundry_local_sdk import FoundryLocalManager
    from foundry_local_sdk.imodel import IModel

CATALOG_VARIABLE = "SLMOPS_FOUNDRY_CATALOG_URL"
# Its own switch leaves one report at each start; only where it sees continuous integration it sends nothing. The libraries
# beneath it have a variable each.
_SILENCE = {"CI": "1", "ORT_DISABLE_TELEMETRY": "1", "ORT_TELEMETRY_DISABLED": "1"}
_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT"}
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class FoundryListing:
    """variants: sorted by alias and id. missing: why only cached ones are listed, and what to do; None when all are."""

    variants: tuple[FoundryVariant, ...]
    missing: str | None = None


class FoundrySource:
    """A model by its alias or its id. One in the cache is taken as it is there; a newer one can be had by its id."""

    def __init__(self, reference: FoundryReference) -> None:
        self._wanted = reference.alias
        self._found: FoundryVariant | None = None

    def pin(self) -> str | None:
        """The id has the version in it, and versions never change."""
        return str(FoundryReference(self._variant().id))

    def size(self) -> FetchSize | None:
        variant = self._variant()
        if variant.size_bytes is None:
            return None
        return FetchSize(0 if variant.folder is not None else variant.size_bytes, 0, variant.size_bytes)

    def fetch(self, downloads: Path, scratch: Path, progress: Progress) -> Fetched:
        variant = self._variant()
        if variant.folder is not None:
            return Fetched(variant.folder, is_ours=False, licence=variant.licence)
        progress.stage(f"{DOWNLOADING if variant.size_bytes else 'fetching'} {variant.id}")
        with foundry_local(downloads) as manager:
            model = manager.get_catalog().get_model_variant(variant.id)
            if model is None:
                raise SourceUnavailable(_unreachable(f"does not give {variant.id} any more"))
            _download(model, variant, progress)
            folder = _inside(downloads, Path(model.get_path()), variant.id)
        return Fetched(folder, is_ours=True, licence=variant.licence)

    def _variant(self) -> FoundryVariant:
        if self._found is None:
            self._found = choose(cached_variants(cache_folder()), self._wanted) or self._in_catalog()
        return self._found

    def _in_catalog(self) -> FoundryVariant:
        variants = _catalog()
        if not variants:
            raise SourceUnavailable(_unreachable(f"cannot be read, and {cache_folder()} has no model {self._wanted!r}"))
        found = choose(variants, self._wanted)
        if found is None:
            raise SourceUnavailable(
                f"Foundry Local's catalog has no model {self._wanted!r} for this machine. `slmops foundry list` shows what it has."
            )
        return found


def list_foundry(*, offline: bool) -> FoundryListing:
    """The catalog, with what is cached marked; only the cached models when it is out of reach. Raises nothing for that."""
    missing = "Only cached models are listed: `offline` is set."
    variants: list[FoundryVariant] = []
    if not offline:
        try:
            variants = _catalog()
            missing = f"Only cached models are listed. {_unreachable('cannot be read')}"
        except SourceUnavailable as error:
            missing = f"Only cached models are listed. {error.message}"
    every = {each.id: each for each in (*cached_variants(cache_folder()), *variants)}
    ordered = sorted(every.values(), key=lambda each: (each.alias, each.id))
    return FoundryListing(tuple(ordered), None if variants else missing)


@contextmanager
def foundry_local(cache: Path) -> Iterator[FoundryLocalManager]:
    """The SDK, started with `cache` as its folder of models: it prints nothing, and sends nothing but the requested downloads.

    One at a time in a process. Its logs and its catalog of local models are forgotten at the end.
    Raises SourceUnavailable when it is not installed or does not start.
    """
    os.environ.update(_SILENCE)
    try:
        import foundry_local_sdk as sdk
    except ImportError as error:
        raise SourceUnavailable(
            "Foundry Local's SDK cannot be loaded. Run `pip install foundry-local-sdk`, which has wheels for Windows, Linux (x64, "
            "ARM64) and macOS (ARM64)."
        ) from error
    with tempfile.TemporaryDirectory(prefix="slmops-foundry-") as data:
        catalog = os.environ.get(CATALOG_VARIABLE)
        configuration = sdk.Configuration(
            app_name="slmops",
            app_data_dir=data,
            logs_dir=f"{data}/logs",
            model_cache_dir=str(cache),
            log_level=sdk.LogLevel.FATAL,
            disable_nonessential_telemetry=True,
            catalog_urls=[(catalog, None)] if catalog else None,
        )
        try:
            manager = sdk.FoundryLocalManager(configuration)
        except sdk.FoundryLocalException as error:
            raise SourceUnavailable(f"Foundry Local does not start: {error}. Check the free space and {cache}.") from error
        try:
            yield manager
        finally:
            manager.close()


def _catalog() -> list[FoundryVariant]:
    """What the catalog has for this machine, and where it is cached.

    Empty when it cannot be read: the SDK does not distinguish the two.
    """
    with tempfile.TemporaryDirectory(prefix="slmops-foundry-") as cache, foundry_local(Path(cache)) as manager:
        listed = [variant for model in manager.get_catalog().list_models() for variant in model.variants]
        found = [_described(variant) for variant in listed if is_model_id(variant.info.id)]
    folders = {each.id: each.folder for each in cached_variants(cache_folder())}
    return [replace(variant, folder=folders.get(variant.id)) for variant in found]


def _inside(downloads: Path, folder: Path, model: str) -> Path:
    """The folder where the SDK put a model. Raises CorruptModel if it is not below the SDK's own folder."""
    real, root = folder.resolve(), downloads.resolve()
    if not real.is_relative_to(root) or real == root:
        raise CorruptModel(f"Foundry Local's catalog put {model} into {folder}, outside {downloads}. Do not trust this catalog.")
    return folder


def _described(model: IModel) -> FoundryVariant:
    info = model.info
    device = info.runtime.device_type if info.runtime else None
    licence = info.license or ""
    return FoundryVariant(
        id=info.id,
        alias=info.alias,
        device=str(device).lower() if device else device_in(info.name),
        size_bytes=None if info.file_size_mb is None else info.file_size_mb << 20,
        licence=licence_of(licence, _SPDX) if licence else None,
    )


def _download(model: IModel, variant: FoundryVariant, progress: Progress) -> None:
    """Downloads on a thread of its own: ctrl-C reaches Python code only, and a download is one long call into the SDK."""
    percent, stop = [0.0], threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            model.download(lambda value: percent.__setitem__(0, value), stop)
        except BaseException as error:  # whatever ends this thread: its end alone would look like success
            failures.append(error)

    thread = threading.Thread(target=work, name="foundry-download")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_LOOK_EVERY_S)
            total = variant.size_bytes
            progress.update(int(percent[0] / 100 * (total or 100)), total or 100)
    finally:
        stop.set()
        thread.join()
    if failures:
        raise SourceUnavailable(
            f"{variant.id} could not be downloaded: {failures[0]}. Check the network and proxy settings; "
            "the next pull resumes where this one stopped."
        ) from failures[0]


def _unreachable(what: str) -> str:
    return (
        f"Foundry Local's catalog {what}. Check the network and proxy settings, or name a folder that holds Foundry Local's models "
        f"with {CACHE_VARIABLE}. Models that are already here go on working."
    )
