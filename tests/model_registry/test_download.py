"""Downloads from a real server: resumption, retries, checksums, a full disk, and what stays behind."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from model_registry import download as downloading
from model_registry.download import MAX_ATTEMPTS, Download, download, http_client
from model_registry.errors import ChecksumMismatch, OutOfDisk, SourceUnavailable
from model_registry.progress import SilentProgress
from tests.doubles.registry_http import LocalServer, Page

pytestmark = pytest.mark.api

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()


class RecordedProgress:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.updates: list[tuple[int, int | None]] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def update(self, done: int, total: int | None) -> None:
        self.updates.append((done, total))


class Interrupts(SilentProgress):
    """Presses ctrl-C once `after` bytes are there."""

    def __init__(self, after: int) -> None:
        self.after = after

    def update(self, done: int, total: int | None) -> None:
        if done >= self.after:
            raise KeyboardInterrupt


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with http_client() as opened:
        yield opened


@pytest.fixture
def pauses() -> list[float]:
    return []


def test_a_file_arrives_whole(server: LocalServer, client, tmp_path: Path):
    server.add("/model", BODY)
    recorded = RecordedProgress()
    target = tmp_path / "sub" / "model.gguf"
    assert download(client, Download(f"{server.url}/model", target, SHA256, len(BODY)), recorded) == SHA256
    assert target.read_bytes() == BODY
    assert recorded.stages == ["downloading model.gguf"]
    assert recorded.updates[0] == (0, len(BODY))
    assert recorded.updates[-1] == (len(BODY), len(BODY))
    assert list(target.parent.iterdir()) == [target]


def test_a_broken_connection_goes_on_where_it_stopped(server: LocalServer, client, tmp_path, pauses):
    server.add("/model", BODY).cut_after = [300_000, 200_000]
    download(client, Download(f"{server.url}/model", tmp_path / "m", SHA256), SilentProgress(), pause=pauses.append)
    assert (tmp_path / "m").read_bytes() == BODY
    starts = [int(seen.headers.get("Range", "bytes=0-")[6:-1]) for seen in server.seen]
    assert starts[0] == 0
    assert 0 < starts[1] < starts[2] <= 500_000
    assert len(pauses) == 2


def test_an_interrupted_download_resumes_in_the_next_call(server: LocalServer, client, tmp_path):
    server.add("/model", BODY)
    wanted = Download(f"{server.url}/model", tmp_path / "m")
    with pytest.raises(KeyboardInterrupt):
        download(client, wanted, Interrupts(after=1))
    have = wanted.part.stat().st_size
    assert have > 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".part"}
    recorded = RecordedProgress()
    download(client, wanted, recorded)
    assert recorded.stages[1:] == [f"{recorded.stages[0]}, resuming at {have / 1e6:.1f} of 1.0 MB"]
    assert server.seen[1].headers["Range"] == f"bytes={have}-"
    assert server.seen[1].headers["If-Range"] == server.pages["/model"].etag
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_starts_again(server: LocalServer, client, tmp_path):
    server.add("/model", b"old" * 1000).cut_after = [1000]
    wanted = Download(f"{server.url}/model", tmp_path / "m")
    server.pages["/model"].statuses = []
    download_once(client, wanted)
    server.add("/model", BODY)
    download(client, wanted, SilentProgress())
    assert (tmp_path / "m").read_bytes() == BODY


def download_once(client: httpx.Client, wanted: Download) -> None:
    """One attempt that breaks, then ctrl-C in the pause."""

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(client, wanted, SilentProgress(), pause=stop)


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_server_without_ranges_sends_all_again(server: LocalServer, client, tmp_path, pauses, sha256):
    server.add("/model", Page(BODY, ranges=False, cut_after=[1000]))
    download(client, Download(f"{server.url}/model", tmp_path / "m", sha256), SilentProgress(), pause=pauses.append)
    assert (tmp_path / "m").read_bytes() == BODY


def test_a_part_that_is_whole_already_is_accepted(server: LocalServer, client, tmp_path):
    server.add("/model", BODY)
    wanted = Download(f"{server.url}/model", tmp_path / "m", SHA256)
    wanted.part.write_bytes(BODY)
    download(client, wanted, SilentProgress())
    assert (tmp_path / "m").read_bytes() == BODY


def test_a_part_longer_than_the_file_starts_again(server: LocalServer, client, tmp_path, pauses):
    server.add("/model", BODY)
    wanted = Download(f"{server.url}/model", tmp_path / "m", SHA256)
    wanted.part.write_bytes(BODY + b"more")
    download(client, wanted, SilentProgress(), pause=pauses.append)
    assert (tmp_path / "m").read_bytes() == BODY


@pytest.mark.parametrize("damage", ["content", "size"])
def test_other_bytes_than_promised_are_refused_and_discarded(server: LocalServer, client, tmp_path, damage):
    server.add("/model", BODY[:-1] + b"!" if damage == "content" else BODY + b"!")
    wanted = Download(f"{server.url}/model", tmp_path / "m", SHA256, len(BODY))
    with pytest.raises(ChecksumMismatch, match="should have"):
        download(client, wanted, SilentProgress())
    assert list(tmp_path.iterdir()) == []


def test_transient_errors_are_retried_with_growing_pauses(server: LocalServer, client, tmp_path, pauses):
    page = server.add("/model", BODY)
    page.statuses = [503, 429, 502]
    page.headers = {}
    download(client, Download(f"{server.url}/model", tmp_path / "m"), SilentProgress(), pause=pauses.append)
    assert pauses == [1.0, 2.0, 4.0]


def test_retry_after_is_obeyed_within_reason(server: LocalServer, client, tmp_path, pauses):
    page = server.add("/model", BODY)
    page.statuses, page.headers = [429, 503], {"Retry-After": "7"}
    download(client, Download(f"{server.url}/model", tmp_path / "m"), SilentProgress(), pause=pauses.append)
    assert pauses == [7.0, 7.0]
    page.statuses, page.headers = [429], {"Retry-After": "86400"}
    download(client, Download(f"{server.url}/model", tmp_path / "n"), SilentProgress(), pause=pauses.append)
    assert pauses[-1] == 60.0


def test_a_server_that_keeps_failing_is_given_up(server: LocalServer, client, tmp_path, pauses):
    server.add("/model", BODY).statuses = [500] * 20
    with pytest.raises(SourceUnavailable, match="answered 500"):
        download(client, Download(f"{server.url}/model", tmp_path / "m"), SilentProgress(), pause=pauses.append)
    assert server.count("/model") == MAX_ATTEMPTS


def test_nobody_listening_is_given_up(client, tmp_path, pauses):
    with pytest.raises(SourceUnavailable, match="network"):
        download(client, Download("http://127.0.0.1:9/x", tmp_path / "m"), SilentProgress(), pause=pauses.append)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "text"), [(401, "token"), (403, "token"), (404, "exist"), (418, "unexpected")])
def test_final_errors_are_not_retried(server: LocalServer, client, tmp_path, status, text):
    server.add("/model", BODY).statuses = [status]
    url = f"{server.url.replace('//', '//user:secret@')}/model?token=secret"
    with pytest.raises(SourceUnavailable, match=text) as raised:
        download(client, Download(url, tmp_path / "m"), SilentProgress())
    assert "secret" not in raised.value.message
    assert server.count("/model") == 1


def test_endless_redirects_are_given_up_at_once(server: LocalServer, client, tmp_path, pauses):
    page = server.add("/model", BODY)
    page.statuses, page.headers = [302] * 50, {"Location": "/model?token=secret"}
    with pytest.raises(SourceUnavailable, match="redirects without end") as raised:
        download(client, Download(f"{server.url}/model", tmp_path / "m"), SilentProgress(), pause=pauses.append)
    assert "secret" not in raised.value.message
    assert pauses == []


def test_a_full_disk_discards_the_part(server: LocalServer, client, tmp_path, monkeypatch):
    server.add("/model", BODY)
    real_open = Path.open

    class FullFile:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.file.close()

        def write(self, data):
            self.file.write(data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name):
            return getattr(self.file, name)

    def open_full(path, mode="r", *args, **kwargs):
        file = real_open(path, mode, *args, **kwargs)
        return FullFile(file) if path.name == "m.part" and "b" in mode and mode != "rb" else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OutOfDisk, match="The disk is full") as raised:
        download(client, Download(f"{server.url}/model", tmp_path / "m"), SilentProgress())
    assert raised.value.needed_bytes == len(BODY)
    assert list(tmp_path.iterdir()) == []


def test_a_file_larger_than_the_disk_is_not_begun(server: LocalServer, client, tmp_path, monkeypatch):
    server.add("/model", BODY)

    class Usage:
        free = 100

    monkeypatch.setattr(downloading.require_free.__globals__["shutil"], "disk_usage", lambda path: Usage)
    with pytest.raises(OutOfDisk, match=r"1\.0 MB"):
        download(client, Download(f"{server.url}/model", tmp_path / "m"), SilentProgress())
    assert list(tmp_path.iterdir()) == []


class Endless(httpx.SyncByteStream):
    """Bytes without end; it counts how many were taken."""

    taken = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.taken += 1 << 16
            yield bytes(1 << 16)


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    return http_client(httpx.MockTransport(answer))


@pytest.mark.parametrize("size_bytes", [1 << 20, None])
def test_a_server_that_sends_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int | None):
    class Usage:
        free = 4 << 20

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    stream = Endless()
    wanted = Download("https://host/x", tmp_path / "x", size_bytes=size_bytes)
    too_much = pytest.raises(ChecksumMismatch, match=r"sends more than|declares no length")
    with answering(lambda request: httpx.Response(200, stream=stream)) as client, too_much:
        download(client, wanted, SilentProgress())
    assert stream.taken <= (2 << 20) + (1 << 17)
    assert list(tmp_path.iterdir()) == []


def test_the_token_goes_to_no_other_host(tmp_path: Path):
    seen: dict[str, str | None] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        seen[request.url.host] = request.headers.get("Authorization")
        there = {"hub": "https://hub/y", "cdn": "https://other/x"}
        if request.url.path == "/x" and request.url.host in there:
            return httpx.Response(302, headers={"Location": there[request.url.host]})
        if request.url == "https://hub/y":
            return httpx.Response(302, headers={"Location": "https://cdn/x?signature=1"})
        return httpx.Response(200, stream=httpx.ByteStream(b"model"))

    wanted = Download("https://hub/x", tmp_path / "x", headers={"Authorization": "Bearer mine"})
    with answering(answer) as client:
        download(client, wanted, SilentProgress())
    assert seen == {"hub": "Bearer mine", "cdn": None, "other": None}


def test_a_redirect_that_drops_encryption_is_not_followed(tmp_path: Path):
    hosts = []

    def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://hub/x"})

    with answering(answer) as client, pytest.raises(SourceUnavailable, match=r"redirects to http://hub, which is not encrypted"):
        download(client, Download("https://user:secret@hub/x", tmp_path / "x"), SilentProgress())
    assert len(hosts) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "https://host:port/x", "no address"])
def test_what_is_no_address_is_not_tried_again(client: httpx.Client, tmp_path: Path, pauses: list[float], url: str):
    with pytest.raises(SourceUnavailable, match="is no address of a file"):
        download(client, Download(url, tmp_path / "x"), SilentProgress(), pause=pauses.append)
    assert pauses == []


def test_the_proxy_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    wanted = Download("https://host.example/x?token=secret", tmp_path / "x")
    with http_client() as client, pytest.raises(SourceUnavailable, match=r"proxy http://127\.0\.0\.1:9 \(set by HTTPS_") as raised:
        download(client, wanted, SilentProgress(), pause=lambda _: None)
    assert "secret" not in raised.value.message


def test_a_part_that_is_whole_to_the_server_alone_is_refused(server: LocalServer, client: httpx.Client, tmp_path: Path):
    server.add("/x", b"model")
    (tmp_path / "x.part").write_bytes(b"model")
    wanted = Download(f"{server.url}/x", tmp_path / "x", size_bytes=9, sha256="0" * 64)
    with pytest.raises(ChecksumMismatch, match="has 5 bytes and should have 9"):
        download(client, wanted, SilentProgress())
