"""One file over HTTPS to disk: streamed, resumed, hashed, retried, renamed into place. Knows no models and no hubs.

While it downloads, `<name>.part` holds the bytes and `<name>.etag.part` what the server calls this content; both stay
when the download is interrupted, and the next call resumes from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from model_registry.addresses import proxy_for, without_credentials
from model_registry.disk import CHUNK_BYTES, require_free, storage_errors, sync_file, sync_folder
from model_registry.errors import ChecksumMismatch, OutOfDisk, SourceUnavailable
from model_registry.progress import Progress

MAX_ATTEMPTS = 6  # in a row without a new byte
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Download:
    """What to get. sha256 and size_bytes: what it must be, when known. headers: sent to the first host only."""

    url: str
    target: Path
    sha256: str | None = None
    size_bytes: int | None = None
    headers: Mapping[str, str] | None = None

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def validator(self) -> Path:
        return self.target.with_name(f"{self.target.name}.etag.part")


class _TryAgain(Exception):
    """This attempt failed, but another may succeed. wait_s: the server's Retry-After."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def http_client(transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """Trusts the machine's certificates (and SSL_CERT_FILE), honours the proxy variables, follows redirects.

    Authorization goes to no other host than the first, and a redirect from HTTPS to HTTP is not followed (SourceUnavailable).
    """
    return httpx.Client(
        transport=transport,
        verify=ssl.create_default_context(),
        follow_redirects=True,
        timeout=httpx.Timeout(30.0, connect=15.0),
        headers={"User-Agent": "slmops", "Accept-Encoding": "identity"},
        event_hooks={"response": [_refuse_downgrade]},
    )


def _refuse_downgrade(response: httpx.Response) -> None:
    if not response.has_redirect_location:
        return
    url = response.url.join(response.headers["Location"])
    if url.scheme not in ("https", response.url.scheme):
        raise SourceUnavailable(
            f"{without_credentials(str(response.url))} redirects to {url.scheme}://{url.host}, which is not encrypted. "
            "It is not followed; check the address and any proxy or mirror between."
        )


def download(client: httpx.Client, wanted: Download, progress: Progress, *, pause: Callable[[float], None] = time.sleep) -> str:
    """The file is at `wanted.target` after this; its sha256. `pause` waits between attempts.

    Raises SourceUnavailable, ChecksumMismatch (the bytes are discarded), OutOfDisk (likewise).
    """
    wanted.target.parent.mkdir(parents=True, exist_ok=True)
    progress.stage(f"downloading {wanted.target.name}")
    try:
        _complete(client, wanted, progress, pause)
        return _accept(wanted)
    except (ChecksumMismatch, OutOfDisk):
        _discard(wanted)
        raise


def _complete(client: httpx.Client, wanted: Download, progress: Progress, pause: Callable[[float], None]) -> None:
    """Attempts until the part holds everything."""
    failures = 0
    while True:
        before = _size(wanted.part)
        try:
            return _attempt(client, wanted, progress)
        except httpx.TooManyRedirects as error:
            raise SourceUnavailable(
                f"{without_credentials(wanted.url)} redirects without end. Check the address and any proxy or mirror between."
            ) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            shown = without_credentials(wanted.url)
            raise SourceUnavailable(f"{shown} is no address of a file: {error}. Check the mirror in use.") from error
        except (_TryAgain, httpx.RequestError) as error:
            failures = 1 if _size(wanted.part) > before else failures + 1
            if failures >= MAX_ATTEMPTS:
                raise SourceUnavailable(
                    f"{without_credentials(wanted.url)} could not be fetched{proxy_for(wanted.url)}: {_reason(error)}. "
                    "Check the network and proxy settings, and run the command again; it resumes where it stopped."
                ) from error
            retry_after_s = error.wait_s if isinstance(error, _TryAgain) else None
            pause(min(60.0, retry_after_s) if retry_after_s is not None else min(30.0, 0.5 * 2.0**failures))


def _attempt(client: httpx.Client, wanted: Download, progress: Progress) -> None:
    headers = dict(wanted.headers or {})
    have = _size(wanted.part)
    etag = wanted.validator.read_text() if wanted.validator.exists() else ""
    if have and (etag or wanted.sha256):
        headers["Range"] = f"bytes={have}-"
        if etag:
            headers["If-Range"] = etag
    with client.stream("GET", wanted.url, headers=headers) as response:
        if response.status_code == 416:  # nothing after what we have: it is whole, or it is something else
            if _total(response) != have:
                _discard(wanted)
                raise _TryAgain("the server's file changed")
            return
        _check_status(response, wanted)
        start = _start(response, have, wanted)
        total = _expected_total(response, start, wanted)
        if etag != (new := _strong_etag(response)):
            wanted.validator.write_text(new)
        _write(response, wanted, start, total, progress)


def _write(response: httpx.Response, wanted: Download, start: int, total: int | None, progress: Progress) -> None:
    done = start
    missing = (total or start) - start
    most = total if total is not None else start + shutil.disk_usage(wanted.part.parent).free // 2
    require_free(wanted.part.parent, missing, f"downloading {wanted.target.name}")
    with (
        storage_errors(wanted.part.parent, missing, f"downloading {wanted.target.name}"),
        wanted.part.open("r+b" if start else "wb", buffering=0) as file,
    ):
        file.truncate(start)
        file.seek(start)
        if start:
            progress.stage(f"downloading {wanted.target.name}, resuming at {_megabytes(start, total)}")
        progress.update(done, total)
        for block in response.iter_raw():  # as they come: what has arrived is kept when the rest does not
            if done + len(block) > most:
                raise ChecksumMismatch(_endless(wanted, total))
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
            done += len(block)
            progress.update(done, total)
    if total is not None and done != total:
        raise _TryAgain(f"the connection ended after {done} of {total} bytes")


def _megabytes(done: int, total: int | None) -> str:
    return f"{done / 1e6:.1f} MB" if total is None else f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"


def _endless(wanted: Download, total: int | None) -> str:
    problem = f"sends more than the {total} bytes" if total is not None else "declares no length, and would fill half of the disk"
    promised = " that it should have" if total is not None else ""
    return f"{without_credentials(wanted.url)} {problem}{promised}. Nothing of it was kept. Check the mirror in use."


def _check_status(response: httpx.Response, wanted: Download) -> None:
    status, shown = response.status_code, without_credentials(wanted.url)
    if status in (200, 206):
        return
    if status in _TRANSIENT:
        after = response.headers.get("Retry-After", "")
        raise _TryAgain(f"the server answered {status}", float(after) if after.isdigit() else None)
    if status in (401, 403):
        raise SourceUnavailable(f"{shown} is not open to you (status {status}). Check the access token and the model's terms.")
    if status in (404, 410):
        raise SourceUnavailable(f"{shown} does not exist (status {status}). Check the reference's spelling and version.")
    raise SourceUnavailable(f"{shown} answered with the unexpected status {status}. Check the address and any proxy between.")


def _start(response: httpx.Response, have: int, wanted: Download) -> int:
    """The offset of the first byte of this response's body."""
    if response.status_code == 200:
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        _discard(wanted)
        raise _TryAgain("the server sent another part than requested")
    return have


def _expected_total(response: httpx.Response, start: int, wanted: Download) -> int | None:
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else _total(response) or wanted.size_bytes
    if wanted.size_bytes is not None and total != wanted.size_bytes:
        raise ChecksumMismatch(
            f"{without_credentials(wanted.url)} has {total} bytes and should have {wanted.size_bytes}: it is not the file that was "
            "promised. Try again later, or check the mirror in use."
        )
    return total


def _accept(wanted: Download) -> str:
    if wanted.size_bytes is not None and (size := _size(wanted.part)) != wanted.size_bytes:
        raise ChecksumMismatch(
            f"{without_credentials(wanted.url)} has {size} bytes and should have {wanted.size_bytes}. Nothing of it was kept."
        )
    digest = hashlib.sha256()
    with wanted.part.open("rb", buffering=0) as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
    found = digest.hexdigest()
    if wanted.sha256 is not None and found != wanted.sha256:
        raise ChecksumMismatch(
            f"{without_credentials(wanted.url)} has the sha256 {found} and should have {wanted.sha256}: it was damaged or "
            "replaced. Nothing of it was kept. Try again, or check the mirror in use."
        )
    sync_file(wanted.part)
    wanted.part.replace(wanted.target)
    wanted.validator.unlink(missing_ok=True)
    sync_folder(wanted.target.parent)
    return found


def _discard(wanted: Download) -> None:
    wanted.part.unlink(missing_ok=True)
    wanted.validator.unlink(missing_ok=True)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _total(response: httpx.Response) -> int | None:
    _, _, total = response.headers.get("Content-Range", "").partition("/")
    return int(total) if total.isdigit() else None


def _strong_etag(response: httpx.Response) -> str:
    etag = str(response.headers.get("ETag", ""))
    return "" if etag.startswith("W/") else etag


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
