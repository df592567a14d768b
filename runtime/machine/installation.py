"""Whether the installed packages fit each other: wheels that share one import name, releases that require others. No vendor import.

`installed_packages` reads what pip wrote; `check_installation` is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from runtime.machine.execution_provider import KNOWN

_OF_INTEREST = ("onnxruntime", "foundry-local", "slmops")
_NATIVE = ("onnxruntime/capi/onnxruntime_pybind11_state", "onnxruntime_genai/onnxruntime_genai.")


class Status(StrEnum):
    OK = "ok"
    NOTE = "note"  # works, and could be better or is worth knowing
    PROBLEM = "problem"  # something does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """remedy: the exact command or act; None when there is nothing to do."""

    subject: str
    status: Status
    message: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Package:
    """requires: from its metadata. in_place: whether its native module is the one on disk; None when it has none that counts."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    in_place: bool | None = None


@dataclass(frozen=True, slots=True)
class ImportName:
    """Wheels that bring the same module, so that each overwrites files of the one before.

    twins: flavours released together with the plain one: at the same version they contain it, and may be installed over it.
    """

    plain: str
    twins: frozenset[str]
    others: frozenset[str]
    gives: str

    @property
    def all(self) -> frozenset[str]:
        return frozenset({self.plain}) | self.twins | self.others


_SEPARATE = ("cann", "coreml", "directml", "migraphx", "openvino", "rocm", "silicon", "training", "trt-rtx", "vitisai", "webgpu")
ONNXRUNTIME = ImportName(
    plain="onnxruntime",
    twins=frozenset({"onnxruntime-gpu"}),
    others=frozenset(f"onnxruntime-{flavour}" for flavour in (*_SEPARATE, "windowsml")),
    gives="the engine that runs every model",
)
GENAI = ImportName(
    plain="onnxruntime-genai",
    twins=frozenset({"onnxruntime-genai-cuda"}),
    others=frozenset(f"onnxruntime-genai-{flavour}" for flavour in ("directml", "directml-ryzenai", "winml")),
    gives="the engine genai: accelerators, and graphs that our own engine does not run",
)
FOUNDRY = ImportName(
    plain="foundry-local-sdk",
    twins=frozenset(),
    others=frozenset({"foundry-local-sdk-winml"}),
    gives="the engine foundry: models of Foundry's catalog",
)
IMPORT_NAMES = (ONNXRUNTIME, GENAI, FOUNDRY)


def installed_packages() -> tuple[Package, ...]:
    """The installed packages of interest, by name."""
    found: dict[str, Distribution] = {}
    for each in distributions():
        found.setdefault(canonicalize_name(each.name), each)  # the first on the path is the one in use
    return tuple(_package(name, found[name]) for name in sorted(found) if name.startswith(_OF_INTEREST))


def _package(name: str, distribution: Distribution) -> Package:
    native = [file for file in distribution.files or () if file.as_posix().startswith(_NATIVE)]
    in_place = all(map(_is_on_disk, native)) if native else None
    return Package(name, distribution.version, tuple(distribution.requires or ()), in_place)


def _is_on_disk(file: PackagePath) -> bool:
    """Whether the file on disk is the package's own, by its size: no two flavours' modules of the same size are known."""
    path = Path(file.locate())
    return file.size is None or (path.exists() and path.stat().st_size == file.size)


def check_installation(packages: Sequence[Package]) -> tuple[Finding, ...]:
    by_name = {package.name: package for package in packages}
    findings = [_check_import_name(name, by_name) for name in IMPORT_NAMES]
    return (*findings, *_plugins(packages), *_extras(by_name), *_unmet(packages, by_name))


# ---- one import name, several wheels ----


def _check_import_name(name: ImportName, by_name: Mapping[str, Package]) -> Finding:
    here = [by_name[each] for each in sorted(name.all) if each in by_name]
    flavours = [package for package in here if package.name != name.plain]
    match here, flavours:
        case [], _:
            status = Status.PROBLEM if name is ONNXRUNTIME else Status.NOTE
            return Finding(name.plain, status, f"not installed; it gives {name.gives}", f"pip install {name.plain}")
        case [only], _:
            return _alone(name, only)
        case _, [flavour]:
            return _beside_plain(name, by_name[name.plain], flavour)
        case _:
            return _several(name, here, flavours)


def _alone(name: ImportName, only: Package) -> Finding:
    if only.in_place is False:
        message = f"the files of {only.name} {only.version} were overwritten or removed by another wheel"
        return Finding(name.plain, Status.PROBLEM, message, _reinstall(only))
    return Finding(name.plain, Status.OK, f"{only.name} {only.version}")


def _beside_plain(name: ImportName, plain: Package, flavour: Package) -> Finding:
    both = f"{plain.name} {plain.version} and {flavour.name} {flavour.version} share one import name"
    if flavour.name not in name.twins:
        remedy = f"pip uninstall -y {plain.name} && {_reinstall(flavour)}"
        return Finding(name.plain, Status.PROBLEM, f"{both}, and cannot be installed over each other", remedy)
    if flavour.version != plain.version:
        remedy = _reinstall(Package(flavour.name, plain.version))
        return Finding(name.plain, Status.PROBLEM, f"{both}, at different versions", remedy)
    if flavour.in_place is False:
        return Finding(name.plain, Status.PROBLEM, f"{both}, and the plain one was installed last", _reinstall(flavour))
    return Finding(name.plain, Status.OK, f"{flavour.name} {flavour.version}, over {plain.name} of the same version")


def _several(name: ImportName, here: Sequence[Package], flavours: Sequence[Package]) -> Finding:
    names = ", ".join(f"{package.name} {package.version}" for package in here)
    keep = next((package for package in flavours if package.in_place), flavours[-1])
    gone = " ".join(package.name for package in here if package.name != keep.name)
    message = f"{names} share one import name: whichever was installed last overwrote the others' files"
    return Finding(name.plain, Status.PROBLEM, message, f"pip uninstall -y {gone} && {_reinstall(keep)}")


def _reinstall(package: Package) -> str:
    return f"pip install --force-reinstall --no-deps {package.name}=={package.version}"


# ---- plugins, extras, requirements ----


def _plugins(packages: Iterable[Package]) -> Iterator[Finding]:
    for package in packages:
        if package.name.startswith("onnxruntime-ep-") or package.name == "onnxruntime-qnn":
            yield Finding("plugin", Status.OK, f"{package.name} {package.version}")


def _extras(by_name: Mapping[str, Package]) -> Iterator[Finding]:
    """The extras of slmops that bring a wheel of interest, and whether all of it is here."""
    wanted: dict[str, list[str]] = {}
    for requirement in _requirements(by_name.get("slmops")):
        for extra in (known.short for known in KNOWN):
            if _applies(requirement, extra) and not _applies(requirement, ""):
                wanted.setdefault(extra, []).append(canonicalize_name(requirement.name))
    for extra, names in wanted.items():
        missing = [name for name in names if name not in by_name and name.startswith(_OF_INTEREST)]
        if not missing:
            yield Finding("extra", Status.OK, extra)
        elif len(missing) < len(names):
            message = f"{extra} is incomplete: {', '.join(missing)} is missing"
            yield Finding("extra", Status.NOTE, message, f"pip install 'slmops[{extra}]'")


def _unmet(packages: Iterable[Package], by_name: Mapping[str, Package]) -> Iterator[Finding]:
    """The unmet requirements of one package.

    A flavour satisfies a requirement of its plain wheel; a missing package is reported above.
    """
    for package in packages:
        for requirement in _requirements(package):
            wanted = canonicalize_name(requirement.name)
            if not wanted.startswith(_OF_INTEREST) or not _applies(requirement, ""):
                continue
            found = _standing_in(wanted, by_name)
            if found is None and wanted in {name.plain for name in IMPORT_NAMES}:
                continue
            if found is None or not requirement.specifier.contains(found.version, prereleases=True):
                yield _unmet_finding(package, requirement, found)


def _unmet_finding(package: Package, requirement: Requirement, found: Package | None) -> Finding:
    wanted = f"{requirement.name}{requirement.specifier}"
    what = f"{found.name} {found.version} is in its place" if found else "it is not installed"
    message = f"{package.name} {package.version} requires {wanted}, and {what}"
    if found is not None and found.name != canonicalize_name(requirement.name):
        message += "; the two cannot share an environment"
        return Finding("versions", Status.PROBLEM, message, f"pip uninstall -y {package.name}")
    return Finding("versions", Status.PROBLEM, message, f"pip install '{wanted}'")


def _standing_in(wanted: str, by_name: Mapping[str, Package]) -> Package | None:
    if wanted in by_name:
        return by_name[wanted]
    family = next((name.all for name in IMPORT_NAMES if name.plain == wanted), frozenset())
    return next((by_name[name] for name in sorted(family) if name in by_name), None)


def _requirements(package: Package | None) -> Iterator[Requirement]:
    for text in package.requires if package else ():
        yield Requirement(text)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
