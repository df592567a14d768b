"""What a home takes of the disk, by kind and by item: each file once, however many names it has. Pure, but for `measure`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model_registry.disk_space.kinds import StorageKind, kind_of
from model_registry.disk_space.walk import FoundFile, walk

OwnersOf = Callable[[str], Collection[str]]  # of a blob, by its digest: the labels of the versions that have it


@dataclass(frozen=True, slots=True)
class KindUsage:
    """used_bytes: allocated. A file with names in several kinds counts for the first of them, in the order of `StorageKind`."""

    kind: StorageKind
    used_bytes: int = 0
    num_files: int = 0


@dataclass(frozen=True, slots=True)
class ItemUsage:
    """One thing that can be removed: a version (`name:number`), a job, an upload, a folder. used_bytes: all that it consists of.

    freed_bytes: what its removal alone gives back; less than used_bytes where it shares files with others.
    """

    kind: StorageKind
    name: str
    used_bytes: int
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class HomeUsage:
    """kinds: all of them. items: the largest first. free_bytes, total_bytes: of the file system that the home is on."""

    kinds: Mapping[StorageKind, KindUsage]
    items: tuple[ItemUsage, ...]
    free_bytes: int
    total_bytes: int

    @property
    def used_bytes(self) -> int:
        return sum(kind.used_bytes for kind in self.kinds.values())

    def used(self, kind: StorageKind) -> int:
        return self.kinds[kind].used_bytes


def measure(home: Path, owners_of: OwnersOf = lambda digest: ()) -> HomeUsage:
    """Reads the folders, which takes about 10 µs a file."""
    return account(walk(home), owners_of, *_disk(home))


def measure_disk(home: Path) -> HomeUsage:
    """The file system alone, as if the home were empty. Reads no folder."""
    return account((), lambda digest: (), *_disk(home))


def _disk(home: Path) -> tuple[int, int]:
    """Bytes that are free, and all."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    disk = shutil.disk_usage(there)
    return disk.free, disk.total


@dataclass(slots=True)
class _Inode:
    used_bytes: int
    num_links: int
    num_seen: int = 0
    kind: StorageKind = StorageKind.OTHER
    items: set[tuple[StorageKind, str]] = field(default_factory=set)


def account(files: Iterable[FoundFile], owners_of: OwnersOf, free_bytes: int, total_bytes: int) -> HomeUsage:
    """What `files` take."""
    inodes: dict[tuple[int, int], _Inode] = {}
    for file in files:
        inode = inodes.setdefault(file.inode, _Inode(file.used_bytes, file.num_links))
        kind = kind_of(file.parts[0])
        inode.kind = kind if inode.num_seen == 0 else min(kind, inode.kind, key=_ORDER.index)
        inode.num_seen += 1
        inode.items.update((kind, name) for name in _items_of(file.parts, owners_of))
    return HomeUsage(_by_kind(inodes.values()), _by_item(inodes.values()), free_bytes, total_bytes)


_ORDER = tuple(StorageKind)


def _items_of(parts: tuple[str, ...], owners_of: OwnersOf) -> Collection[str]:
    """The names of the items that a file belongs to; none for a blob that no version has."""
    match parts:
        case ("models", model, number, *_):
            return (f"{model}:{number}",)
        case ("blobs", _, _, digest):
            return owners_of(digest)
        case ("downloads" | "staging" as folder, name, *_):
            return (f"{folder}/{name}",)
        case (_, name, *_) if kind_of(parts[0]) is not StorageKind.OTHER:
            return (name,)
        case _:
            return (parts[0],)


def _by_kind(inodes: Collection[_Inode]) -> Mapping[StorageKind, KindUsage]:
    used, files = dict.fromkeys(StorageKind, 0), dict.fromkeys(StorageKind, 0)
    for inode in inodes:
        used[inode.kind] += inode.used_bytes
        files[inode.kind] += 1
    return {kind: KindUsage(kind, used[kind], files[kind]) for kind in StorageKind}


def _by_item(inodes: Collection[_Inode]) -> tuple[ItemUsage, ...]:
    used: dict[tuple[StorageKind, str], int] = {}
    freed: dict[tuple[StorageKind, str], int] = {}
    for inode in inodes:
        is_whole = len(inode.items) == 1 and inode.num_seen == inode.num_links  # else a name of it stays
        for item in inode.items:
            used[item] = used.get(item, 0) + inode.used_bytes
            freed[item] = freed.get(item, 0) + (inode.used_bytes if is_whole else 0)
    items = [ItemUsage(kind, name, used[kind, name], freed[kind, name]) for kind, name in used]
    return tuple(sorted(items, key=lambda item: (-item.used_bytes, item.kind, item.name)))
