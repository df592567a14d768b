"""Pulling: from a reference to a published version, once, in any number of processes, with nothing left over."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from model_registry.catalog import load_catalog
from model_registry.conversion import Imported
from model_registry.conversion.formats.onnx.importer import OnnxFolderImporter
from model_registry.disk import sha256_of
from model_registry.errors import (
    ChecksumMismatch,
    CorruptModel,
    InvalidName,
    InvalidReference,
    OutOfDisk,
    SourceUnavailable,
    UnloadableModel,
    UnsupportedModel,
)
from model_registry.progress import SilentProgress
from model_registry.pull import PullOptions, pull
from model_registry.records import Precision
from model_registry.registry import open_registry
from tests.doubles.registry_graphs import files_of, write_browser_export, write_genai_folder
from tests.doubles.registry_http import LocalServer, add_package, add_repository

pytestmark = [pytest.mark.api, pytest.mark.filterwarnings("default::ResourceWarning")]  # huggingface_hub keeps its connection open
GRAPH = f"/org/tiny/resolve/{'a' * 40}/cpu/model.onnx"


class Stages:
    """A progress that remembers stages and may stop the work in one of them."""

    def __init__(self, stop_in: str | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.stages: list[str] = []
        self.stop_in = stop_in
        self.error = error

    def stage(self, text: str) -> None:
        self.stages.append(text)
        if self.stop_in and self.stop_in in text:
            raise self.error

    def update(self, done: int, total: int | None) -> None:
        pass


@pytest.fixture
def hub_model(server: LocalServer, tmp_path: Path) -> dict[str, bytes]:
    """`org/tiny` on the hub, with one genai folder `cpu`."""
    files = files_of(write_genai_folder(tmp_path / "origin"))
    add_repository(server, "org/tiny", {f"cpu/{name}": body for name, body in files.items()})
    return files


def left_over(home: Path) -> list[str]:
    """Files under the home's working folders that a finished command must not leave."""
    folders = (home / "staging", home / "downloads")
    return [path.name for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_a_hub_folder_becomes_a_version_with_its_lineage(registry, home, hub_model):
    progress = Stages()
    version = pull(registry, "hf://org/tiny", progress=progress)
    assert version == registry.resolve("tiny")
    manifest = version.manifest
    assert manifest.source == f"hf://org/tiny@{'a' * 40}"
    assert (manifest.importer, manifest.architecture, manifest.licence) == ("onnx_folder", "llama", "MIT")
    assert manifest.parameters["requested_precision"] == "auto"
    assert manifest.library_versions["onnx"]
    assert set(files_of(version.variants[0].folder)) == set(hub_model)
    assert registry.verify("tiny") == ()
    assert "downloading model.onnx" in progress.stages
    assert left_over(home) == []


def test_what_is_here_is_not_fetched_again(registry, server, hub_model):
    first = pull(registry, "hf://org/tiny")
    assert pull(registry, "hf://org/tiny") == first
    assert pull(registry, "hf://org/tiny", name="other").digest == first.digest
    assert server.count(GRAPH) == 1
    assert [model.name for model in registry.models()] == ["other", "tiny"]


def test_a_new_commit_is_a_new_version(registry, server, hub_model, tmp_path):
    pull(registry, "hf://org/tiny")
    files = files_of(write_genai_folder(tmp_path / "newer", seed=1))
    add_repository(server, "org/tiny", {f"cpu/{name}": body for name, body in files.items()}, commit="b" * 40)
    assert pull(registry, "hf://org/tiny").label == "tiny:2"
    assert registry.resolve("tiny:previous").number == 1


def test_a_damaged_version_is_pulled_again(registry, server, hub_model):
    version = pull(registry, "hf://org/tiny")
    (version.variants[0].folder / "model.onnx").unlink()
    assert pull(registry, "hf://org/tiny") == version
    assert registry.verify("tiny") == ()


def test_a_catalog_name_and_its_builds(registry, hub_model):
    catalog = load_catalog("""
        [models.tiny-chat]
        description = "d"
        licence = "Apache-2.0"
        parameters = 1
        embedded = true
        sampling = {temperature = 0.2, top_p = 0.9}
        builds = [{name = "int8", source = "hf://org/tiny/cpu", download_bytes = 1}]
    """)
    version = pull(registry, "tiny-chat", catalog=catalog)
    recommended = json.loads((version.variants[0].folder / "generation_config.json").read_text())
    assert recommended == {"do_sample": True, "temperature": 0.2, "top_p": 0.9}
    assert (version.model, version.manifest.licence) == ("tiny-chat", "Apache-2.0")
    assert pull(registry, "tiny-chat:int8", catalog=catalog) == version
    with pytest.raises(InvalidReference):
        pull(registry, "tiny-chat:fp64", catalog=catalog)


@pytest.mark.parametrize("kind", ["folder", "zip", "browser export"])
def test_a_path_is_pulled_and_stays_as_it_was(registry, home, tmp_path, kind):
    source = tmp_path / "my-model"
    if kind == "browser export":
        write_browser_export(source)
    else:
        write_genai_folder(source)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "my-model.zip", "w") as zipped:
            for name, body in files_of(source).items():
                zipped.writestr(f"wrapped/{name}", body)
        source = tmp_path / "my-model.zip"
    before = files_of(source) if source.is_dir() else {"": source.read_bytes()}
    version = pull(registry, str(source))
    assert version.label == "my-model:1"
    assert pull(registry, str(source)) == version
    assert (files_of(source) if source.is_dir() else {"": source.read_bytes()}) == before
    assert left_over(home) == []
    assert all(path.stat().st_mode & 0o200 for path in (source, *source.rglob("*"))), "the owner's files stay writable"


def wheel(body: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("models/tiny.gguf", body)
    return buffer.getvalue()


@pytest.mark.parametrize("body", [b"GGUF", b"not a gguf", b"GGUF\3\0\0\0" + bytes(range(256))])
def test_a_corrupt_gguf_from_the_index_leaves_nothing(registry, server, home, body):
    add_package(server, "tiny-models", "1.0", wheel(body))
    with pytest.raises(CorruptModel):
        pull(registry, "pypi://tiny-models==1.0/models/tiny.gguf")
    assert registry.models() == ()
    assert left_over(home) == []


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        (f"pypi://tiny-models==1.0/models/tiny.gguf#sha256={'0' * 64}", ChecksumMismatch),
        ("pypi://tiny-models==1.0/models/other.gguf", InvalidReference),
        ("pypi://tiny-models==2.0/models/tiny.gguf", SourceUnavailable),
    ],
)
def test_a_refused_fetch_leaves_nothing(registry, server, home, reference, error):
    add_package(server, "tiny-models", "1.0", wheel(b"GGUF"))
    with pytest.raises(error):
        pull(registry, reference)
    assert left_over(home) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_before_the_download_leaves_nothing(registry, home, hub_model, error):
    with pytest.raises(error):
        pull(registry, "hf://org/tiny", progress=Stages(stop_in="looking up", error=error))
    assert left_over(home) == []


@pytest.mark.parametrize("stage", ["checking", "copying", "publishing"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_after_the_download_leaves_it_to_the_next_pull(registry, server, home, hub_model, stage, error):
    with pytest.raises(error):
        pull(registry, "hf://org/tiny", progress=Stages(stop_in=stage, error=error))
    assert registry.models() == ()
    assert set(left_over(home)) == set(hub_model)
    assert pull(registry, "hf://org/tiny").label == "tiny:1"
    assert server.count(GRAPH) == 1
    assert left_over(home) == []


def test_an_interrupted_download_is_resumed(registry, server, home, hub_model):
    class StopsHalfway(SilentProgress):
        def update(self, done: int, total: int | None) -> None:
            if total == len(hub_model["model.onnx"]) and done:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(registry, "hf://org/tiny", progress=StopsHalfway())
    assert "model.onnx.part" in left_over(home)
    pull(registry, "hf://org/tiny")
    assert [seen.headers.get("Range") for seen in server.seen if seen.path == GRAPH] == [
        None,
        f"bytes={len(hub_model['model.onnx'])}-",
    ]
    assert left_over(home) == []


def test_an_unsupported_model_is_refused_and_leaves_nothing(registry, server, home):
    add_repository(server, "org/tiny", {"model.gguf.txt": b"", "model.safetensors": b""})
    with pytest.raises(UnsupportedModel):
        pull(registry, "hf://org/tiny")
    with pytest.raises(UnsupportedModel):
        pull(registry, str(Path(__file__)))
    assert left_over(home) == []


def test_a_disk_that_fills_during_the_import_leaves_only_the_download(registry, server, home, hub_model, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(OnnxFolderImporter, "run", full)
        with pytest.raises(OutOfDisk, match="importing tiny needs"):
            pull(registry, "hf://org/tiny")
    assert registry.models() == ()
    assert set(left_over(home)) == set(hub_model)
    assert pull(registry, "hf://org/tiny").label == "tiny:1"
    assert server.count(GRAPH) == 1
    assert left_over(home) == []


def test_nothing_is_published_that_could_not_be_loaded_once(registry, home, hub_model):
    tried = []

    def refuse(folder: Path, imported: Imported) -> str | None:
        tried.append(sorted(path.name for path in folder.iterdir()))
        raise UnloadableModel("it does not load")

    with pytest.raises(UnloadableModel):
        pull(registry, "hf://org/tiny", options=PullOptions(trial=refuse))
    assert "model.onnx" in tried[0]
    assert registry.models() == ()
    assert left_over(home) == [], "the bad download is not used again"


def test_what_could_not_be_tried_is_published_with_the_reason_and_not_as_live(registry, tmp_path):
    options = PullOptions(trial=lambda folder, imported: f"built for another device, {imported.architecture}")
    for seed in (0, 1):
        write_genai_folder(tmp_path / f"{seed}", seed=seed)
        version = pull(registry, str(tmp_path / f"{seed}"), name="tiny", options=options)
        assert version.manifest.warnings == ("built for another device, llama",)
    aliases = {alias.name: alias.number for alias in registry.model("tiny").aliases}
    assert aliases == {"live": 1, "candidate": 2}, "the first version is live, for there is no other"


def test_a_defect_of_an_importer_drops_the_download(registry, home, hub_model, monkeypatch):
    def fail(*args: object) -> None:
        raise AttributeError("a defect")

    monkeypatch.setattr(OnnxFolderImporter, "run", fail)
    with pytest.raises(AttributeError):
        pull(registry, "hf://org/tiny")
    assert left_over(home) == []


@pytest.mark.parametrize("trouble", ["redirects", "encoding"])
def test_an_index_that_makes_no_sense_is_unavailable(registry, server, home, trouble):
    add_package(server, "tiny-models", "1.0", wheel(b"GGUF"))
    page = server.pages["/simple/tiny-models/"]
    if trouble == "redirects":
        page.statuses, page.headers = [302] * 50, {"Location": "/simple/tiny-models/"}
    else:
        page.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(SourceUnavailable, match=r"tiny-models.* could not be fetched|cannot be reached"):
        pull(registry, "pypi://tiny-models==1.0/models/tiny.gguf")
    assert left_over(home) == []


LIMITED = """
import resource, sys
from pathlib import Path
from model_registry.errors import OutOfDisk
from model_registry.pull import pull
from model_registry.registry import open_registry

with open_registry(Path(sys.argv[1])) as registry:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        pull(registry, sys.argv[2])
    except OutOfDisk as error:
        print(error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("source", ["path", "hub"])
def test_the_system_s_own_refusal_to_write_leaves_nothing(server, home, tmp_path, source):
    folder = write_genai_folder(tmp_path / "big")
    (folder / "tokenizer_config.json").write_text('"' + "x" * 1_000_000 + '"')
    add_repository(server, "org/big", files_of(folder))
    reference = str(folder) if source == "path" else "hf://org/big"
    command = [sys.executable, "-c", LIMITED, str(home), reference]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.startswith("The file is larger than may be written there"), run.stderr
    assert left_over(home) == []
    with open_registry(home) as registry:
        assert registry.models() == ()


def test_a_precision_that_cannot_be_had(registry, hub_model, home):
    with pytest.raises(UnsupportedModel, match="fp32"):
        pull(registry, "hf://org/tiny", precision=Precision.FP32)
    assert left_over(home) == []


@pytest.mark.parametrize("name", ["Bad Name", "../x", "Tiny"])
def test_a_bad_name_is_refused_before_anything_is_fetched(registry, server, hub_model, name):
    with pytest.raises(InvalidName, match="cannot name a model"):
        pull(registry, "hf://org/tiny", name=name)
    assert server.seen == []


SCRIPT = """
import os, signal, sys
from pathlib import Path
from model_registry.progress import SilentProgress
from model_registry.pull import pull
from model_registry.registry import open_registry

class Told(SilentProgress):
    def stage(self, text):
        if text == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)

with open_registry(Path(sys.argv[1])) as registry:
    print(pull(registry, "hf://org/tiny", progress=Told()).label)
"""


def test_two_processes_pull_the_same_once(server, home, hub_model):
    command = [sys.executable, "-c", SCRIPT, str(home), ""]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in running]
    assert [output for output, _ in ended] == ["tiny:1\n", "tiny:1\n"], ended
    assert server.count(GRAPH) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
@pytest.mark.parametrize("stage", ["downloading tokenizer.json", "copying the model", "publishing"])
def test_a_pull_killed_anywhere_is_done_by_the_next(server, home, hub_model, stage):
    killed = subprocess.run([sys.executable, "-c", SCRIPT, str(home), stage], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    with open_registry(home) as registry:
        assert registry.models() == ()
        version = pull(registry, "hf://org/tiny")
        assert registry.verify("tiny") == ()
        assert sha256_of(version.variants[0].folder / "model.onnx") == hashlib.sha256(hub_model["model.onnx"]).hexdigest()
    assert [path for path in (home / "downloads").rglob("*") if path.is_file()] == []
