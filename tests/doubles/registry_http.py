"""A real HTTP server on the loopback interface that stands in for a package index, a hub or a file host."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """body: what is served. etag: sent and honoured when set. ranges: whether parts are served.

    cut_after: for the next requests, how many bytes of the answer are sent before the connection breaks.
    statuses: for the next requests, the error status that is answered instead. headers: further ones, of any answer.
    gate: while it is not set, half of what is requested is sent, and the rest once it is.
    """

    body: bytes
    content_type: str = "application/octet-stream"
    etag: str | None = None
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    gate: threading.Event | None = None


@dataclass
class Seen:
    """One request as it came in."""

    path: str
    headers: dict[str, str]


class LocalServer:
    """Pages by path (without query), and all requests that arrived."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.seen: list[Seen] = []
        self.url = ""

    def add(self, path: str, page: Page | bytes) -> Page:
        self.pages[path] = page if isinstance(page, Page) else Page(page, etag=f'"{hashlib.md5(page).hexdigest()}"')
        return self.pages[path]

    def add_json(self, path: str, value: Any, content_type: str = "application/json") -> None:
        self.add(path, Page(json.dumps(value).encode(), content_type))

    def count(self, path: str) -> int:
        return sum(1 for seen in self.seen if seen.path == path)


def _handler(server: LocalServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            server.seen.append(Seen(path, dict(self.headers.items())))
            page = server.pages.get(path)
            if page is None:
                self._fail(404)
            elif page.statuses:
                self._fail(page.statuses.pop(0), page.headers)
            else:
                self._serve(page)

        def do_HEAD(self) -> None:
            self._fail(405)

        def _serve(self, page: Page) -> None:
            start = self._start(page)
            if start is not None and start >= len(page.body):
                self._fail(416, {"Content-Range": f"bytes */{len(page.body)}"})
                return
            body = page.body[start or 0 :]
            self.send_response(200 if start is None else 206)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(body)))
            if page.etag:
                self.send_header("ETag", page.etag)
            for name, value in page.headers.items():
                self.send_header(name, value)
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
            self.end_headers()
            if page.gate is not None and not page.gate.is_set():
                half = len(body) // 2
                with suppress(ConnectionError):
                    self.wfile.write(body[:half])
                    page.gate.wait()
                    self.wfile.write(body[half:])
            elif page.cut_after:
                self.wfile.write(body[: page.cut_after.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(body)

        def _start(self, page: Page) -> int | None:
            match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if match is None or not page.ranges or self.headers.get("If-Range") not in (None, page.etag):
                return None
            return int(match[1])

        def _fail(self, status: int, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def local_server() -> Iterator[LocalServer]:
    server = LocalServer()
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def add_package(server: LocalServer, name: str, version: str, wheel: bytes, *, sha256: str | None = None) -> str:
    """The package appears on the index at `/simple`; the wheel's path on the server."""
    filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    path = f"/files/{filename}"
    digest = sha256 or hashlib.sha256(wheel).hexdigest()
    listing = {
        "meta": {"api-version": "1.1"},
        "name": name,
        "files": [
            {"filename": f"{name}-{version}.tar.gz", "url": "../../files/none.tar.gz", "hashes": {}},
            {"filename": filename, "url": f"../..{path}", "hashes": {"sha256": digest}},
        ],
    }
    server.add_json(f"/simple/{name}/", listing, "application/vnd.pypi.simple.v1+json")
    server.add(path, wheel)
    return path


def add_repository(
    server: LocalServer, repo: str, files: Mapping[str, bytes], *, commit: str = "a" * 40, licence: str | None = "mit"
) -> None:
    """The repository appears on the hub with its default branch at `commit`."""
    info = {
        "_id": "1",
        "id": repo,
        "modelId": repo,
        "sha": commit,
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": path} for path in files],
    } | ({"cardData": {"license": licence}} if licence else {})
    for revision in ("main", commit):
        server.add_json(f"/api/models/{repo}/revision/{revision}", info)
    server.add_json(f"/api/models/{repo}", info)
    tree = [
        {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
        | ({"lfs": {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}} if ".onnx" in path else {})
        for path, body in files.items()
    ]
    server.add_json(f"/api/models/{repo}/tree/{commit}", tree)
    for path, body in files.items():
        server.add(f"/{repo}/resolve/{commit}/{path}", body)
