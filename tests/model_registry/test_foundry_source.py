"""Foundry Local's cache as it lies on disk, and its catalog through the real SDK: served on this machine, or out of reach."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from model_registry.errors import CorruptModel, SourceUnavailable
from model_registry.progress import SilentProgress
from model_registry.pull import pull
from model_registry.references import FoundryReference
from model_registry.registry import Registry
from model_registry.sources import foundry
from model_registry.sources.foundry import FoundrySource, _download, foundry_local, list_foundry
from model_registry.sources.foundry_cache import FoundryVariant, cached_variants, choose, device_in
from tests.doubles.registry_graphs import files_of, write_genai_folder

pytestmark = pytest.mark.model

TINY = "tiny-instruct-generic-cpu:3"
UNREACHABLE = "http://127.0.0.1:1/asset-gallery/v1.0/models"
CATALOG_PATH = "/asset-gallery/v1.0/models"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; and a catalog that is out of reach, so that no test uses the real one."""
    monkeypatch.setenv("SLMOPS_FOUNDRY_CATALOG_URL", UNREACHABLE)
    for name in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):  # what the SDK's start sets is set back
        monkeypatch.setenv(name, "1")
    folder = tmp_path / "cache"
    monkeypatch.setenv("SLMOPS_FOUNDRY_CACHE", str(folder))
    return folder


def cache_model(cache: Path, model_id: str = TINY, *, inside: str = "") -> Path:
    """As a download leaves it: publisher, name and version, perhaps a folder per build within."""
    folder = cache / "Microsoft" / model_id.replace(":", "-") / inside
    write_genai_folder(folder)
    (folder / "inference_model.json").write_text(json.dumps({"Name": model_id, "PromptTemplate": None}))
    return folder


def remember_catalog(cache: Path, **described: Any) -> None:
    """What the SDK keeps of the catalog beside its models."""
    model = {"id": TINY, "alias": "tiny", "license": "MIT", "runtime": {"deviceType": "CPU"}, **described}
    (cache / "foundry.modelinfo.json").write_text(json.dumps({"version": 1, "savedAtUnix": 0, "models": [model]}))


@pytest.fixture
def no_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foundry_local_sdk", None)


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The entries of a catalog that really answers, over HTTP."""
    entries: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"value": entries}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("SLMOPS_FOUNDRY_CATALOG_URL", f"http://127.0.0.1:{server.server_port}{CATALOG_PATH}")
    yield entries
    server.shutdown()
    thread.join()
    server.server_close()


def entry(name: str, version: int, alias: str) -> dict[str, Any]:
    built = {"modelType": "ONNX", "device": "cpu", "executionProvider": "CPUExecutionProvider", "fileSizeBytes": 5 << 20}
    parent = {"assetId": f"azureml://registries/azureml/models/{alias}/versions/1"}
    return {
        "assetId": f"azureml://registries/azureml/models/{name}/versions/{version}",
        "entityId": name,
        "annotations": {"tags": {"task": "chat-completion"}, "systemCatalogData": {"publisher": "Microsoft"}},
        "properties": {"name": name, "version": version, "variantInfo": {"parents": [parent], "variantMetadata": built}},
    }


# ---- what is cached ----


@pytest.mark.usefixtures("no_sdk")
@pytest.mark.parametrize("wanted", [TINY, "tiny-instruct-generic-cpu", "tiny"])
@pytest.mark.parametrize("inside", ["", "v3"])
def test_a_cached_model_is_pulled_without_network_and_without_the_sdk(
    registry: Registry, cache: Path, wanted: str, inside: str
) -> None:
    folder = cache_model(cache, inside=inside)
    remember_catalog(cache)
    before = files_of(folder)
    version = pull(registry, f"foundry://{wanted}")
    manifest, (variant,) = version.manifest, version.variants
    assert (manifest.source, manifest.licence, manifest.architecture) == (f"foundry://{TINY}", "MIT", "llama")
    assert (variant.provider_family, variant.precision) == ("cpu", "int8")
    assert registry.verify(version.model) == ()
    assert files_of(folder) == before
    assert pull(registry, f"foundry://{wanted}") == version
    shutil.rmtree(cache)
    assert registry.verify(version.model) == (), "the version does not live in the cache"


def test_a_cache_that_nobody_described_still_says_enough(cache: Path) -> None:
    cache_model(cache)
    (variant,) = cached_variants(cache)
    assert (variant.id, variant.alias, variant.device, variant.licence) == (TINY, "tiny-instruct-generic-cpu", "cpu", None)
    assert variant.size_bytes == sum(map(len, files_of(cache).values()))


def test_what_is_not_whole_or_not_readable_is_not_cached(cache: Path) -> None:
    assert cached_variants(cache) == []
    (cache_model(cache, "unfinished-generic-cpu:1") / "download.tmp").touch()
    (cache_model(cache, "builds-generic-cpu:1", inside="v1").parent / "download.tmp").touch()
    (cache_model(cache, "nameless-generic-cpu:1") / "inference_model.json").write_text("{")
    (cache_model(cache, "graphless-generic-cpu:1") / "genai_config.json").unlink()
    (cache / "foundry.modelinfo.json").write_text("[]")
    assert cached_variants(cache) == []


def test_a_model_without_a_version_has_version_0(cache: Path) -> None:
    cache_model(cache, "mine")
    assert [(each.id, each.version) for each in cached_variants(cache)] == [("mine:0", 0)]


def test_the_choice_among_variants() -> None:
    ids = ("a-cuda-gpu:9", "a-generic-cpu:1", "a-generic-cpu:10", "a-generic-cpu:2", "b-qnn-npu:1")
    variants = [FoundryVariant(each, each[0], device_in(each.partition(":")[0])) for each in ids]

    def chosen(wanted: str) -> str | None:
        found = choose(variants, wanted)
        return found.id if found else None

    assert chosen("a") == chosen("a-generic-cpu") == "a-generic-cpu:10"
    assert chosen("a-generic-cpu:2") == "a-generic-cpu:2"
    assert chosen("a-cuda-gpu") == "a-cuda-gpu:9"
    assert chosen("b") == "b-qnn-npu:1"
    assert chosen("c") is None


# ---- the catalog, through the SDK ----


def test_out_of_reach_says_what_was_tried_and_what_to_do(registry: Registry, home: Path, cache: Path) -> None:
    with pytest.raises(SourceUnavailable) as raised:
        pull(registry, "foundry://qwen2.5-0.5b")
    message = raised.value.message
    assert "catalog cannot be read" in message
    assert str(cache) in message
    assert "SLMOPS_FOUNDRY_CACHE" in message
    assert registry.models() == ()
    assert [path for path in (home / "staging").rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("no_sdk")
def test_without_the_sdk_the_message_says_what_to_install() -> None:
    with pytest.raises(SourceUnavailable, match="pip install foundry-local-sdk"):
        FoundrySource(FoundryReference("qwen2.5-0.5b")).pin()


def test_an_alias_is_looked_up_in_the_catalog(catalog: list[dict[str, Any]]) -> None:
    catalog += [entry("tiny-instruct-generic-cpu", 3, "tiny"), entry("other-generic-cpu", 1, "other")]
    assert FoundrySource(FoundryReference("tiny")).pin() == f"foundry://{TINY}"
    with pytest.raises(SourceUnavailable, match=r"no model 'absent'.*slmops foundry list"):
        FoundrySource(FoundryReference("absent")).pin()


def test_a_model_whose_files_are_here_already_is_taken_from_the_downloads(catalog: list[dict[str, Any]], tmp_path: Path) -> None:
    catalog.append(entry("tiny-instruct-generic-cpu", 3, "tiny"))
    downloads = tmp_path / "downloads"
    folder = cache_model(downloads)
    fetched = FoundrySource(FoundryReference("tiny")).fetch(downloads, tmp_path, SilentProgress())
    assert (fetched.path, fetched.is_ours) == (folder, True)


def test_what_the_catalog_knows_by_an_alias_is_not_downloaded_when_it_is_cached(
    catalog: list[dict[str, Any]], cache: Path, tmp_path: Path
) -> None:
    catalog.append(entry("tiny-instruct-generic-cpu", 3, "tiny"))
    folder = cache_model(cache)
    fetched = FoundrySource(FoundryReference("tiny")).fetch(tmp_path, tmp_path, SilentProgress())
    assert (fetched.path, fetched.is_ours) == (folder, False)


def test_the_sdk_starts_silent_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CI", "")
    with foundry_local(tmp_path):
        assert os.environ["CI"] == os.environ["ORT_DISABLE_TELEMETRY"] == "1"
        with pytest.raises(SourceUnavailable, match="already"), foundry_local(tmp_path):
            pass
    assert capfd.readouterr() == ("", "")


def test_the_list_joins_catalog_and_cache(catalog: list[dict[str, Any]], cache: Path) -> None:
    catalog += [entry("tiny-instruct-generic-cpu", 3, "tiny"), entry("other-generic-cpu", 1, "other")]
    folder = cache_model(cache)
    listing = list_foundry(offline=False)
    assert listing.missing is None
    assert [(each.alias, each.id, each.folder) for each in listing.variants] == [
        ("other", "other-generic-cpu:1", None),
        ("tiny", TINY, folder),
    ]
    assert listing.variants[0].size_bytes == 5 << 20


@pytest.mark.parametrize(("offline", "why"), [(True, "`offline` is set"), (False, "cannot be read")])
def test_the_list_without_the_catalog_is_what_is_cached(cache: Path, offline: bool, why: str) -> None:
    cache_model(cache)
    listing = list_foundry(offline=offline)
    assert [each.id for each in listing.variants] == [TINY]
    assert listing.missing is not None
    assert why in listing.missing


# ---- a download ----


class SlowModel:
    """A download that lasts until it is stopped."""

    def __init__(self) -> None:
        self.has_stopped = False

    def download(self, progress: Callable[[float], None], stop: threading.Event) -> None:
        progress(50.0)
        assert stop.wait(timeout=60)
        self.has_stopped = True


class Interrupted(SilentProgress):
    """Ctrl-C, once the download is half done."""

    def update(self, done: int, total: int | None) -> None:
        assert total == 1000
        if done == 500:
            raise KeyboardInterrupt


def test_an_interrupt_stops_the_download_before_it_is_passed_on() -> None:
    model = SlowModel()
    with pytest.raises(KeyboardInterrupt):
        _download(model, FoundryVariant(TINY, "tiny", "cpu", size_bytes=1000), Interrupted())
    assert model.has_stopped


class Panic(BaseException):
    """No Exception, as what native libraries may raise."""


class FailingModel:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def download(self, progress: Callable[[float], None], stop: threading.Event) -> None:
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("no connection"), Panic("no connection")], ids=["an error", "a panic"])
def test_a_download_that_fails_says_why_and_what_to_do(error: BaseException) -> None:
    with pytest.raises(SourceUnavailable, match=r"no connection.*resumes where"):
        _download(FailingModel(error), FoundryVariant(TINY, "tiny", "cpu"), SilentProgress())


class PlacingCatalog:
    """Foundry Local's SDK as a hostile catalog might use it: a model is put at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_catalog(self) -> PlacingCatalog:
        return self

    def get_model_variant(self, model_id: str) -> PlacingCatalog:
        return self

    def download(self, tell: Callable[[float], None], stop: threading.Event) -> None:
        tell(100.0)

    def get_path(self) -> str:
        return str(self._path)


@pytest.mark.parametrize("place", ["../elsewhere", "/etc", "."])
def test_a_model_that_is_put_elsewhere_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    @contextmanager
    def started(cache: Path) -> Iterator[PlacingCatalog]:
        yield PlacingCatalog(cache / place)

    monkeypatch.setattr(foundry, "foundry_local", started)
    monkeypatch.setattr(foundry, "_catalog", lambda: [FoundryVariant(TINY, "tiny", "cpu")])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "downloads").mkdir()
    with pytest.raises(CorruptModel, match="outside"):
        FoundrySource(FoundryReference("tiny")).fetch(tmp_path / "downloads", tmp_path, SilentProgress())


@pytest.mark.parametrize("name", ["../x:1", "x:", "x:-1", "a\x1b:1", "x:99999999999", "/x:1", 5, None])
def test_ids_that_are_none_are_not_listed(cache: Path, name: object) -> None:
    folder = cache_model(cache)
    (folder / "inference_model.json").write_text(json.dumps({"Name": name}))
    assert cached_variants(cache) == []
