"""The KV arrays: every row reserved at full context, only touched pages take memory. Knows no sequence and no policy.

All keys and values of all layers live in one anonymous private mapping, `[2 x layers, rows, kv_heads, context, head_size]`, so that
rows 0..n of a layer are one contiguous tensor: what GroupQueryAttention wants as its shared past and present. A row moves by
copying its tokens or, when they are many, by moving its pages (mremap), at a cost that hardly depends on their number.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE_BYTES = mmap.PAGESIZE
HUGE_BYTES = 2 << 20  # rows that begin here move a whole page table at a time
REMAP_ABOVE_BYTES = 64 << 20  # where moving pages begins to be faster than copying: each move flushes all cores' address caches
STALE_TOKENS = 512  # tokens' worth of pages that a row may keep from an earlier holder
MAX_REGIONS = 30_000  # a moved row is a mapping of its own, of which a process may have 65,530 (vm.max_map_count)
_NORESERVE, _NOHUGEPAGE, _DONTNEED = 0x4000, 15, 4
_IS_LINUX = platform.system() == "Linux"
_REMAP_FLAGS = 1 | 2 | 4  # MAYMOVE | FIXED | DONTUNMAP: the old range stays mapped, so no other thread can take it


class KVCache:
    """`layers[i]` is an array [rows, kv_heads, context, head_size]: key of layer 0, value of layer 0, key of layer 1, ...

    `context` is rounded up so that a row is a whole number of pages. held[row]: tokens that the row holds now;
    touched[row]: the most that it held since it was freed, whose pages may be backed.
    """

    def __init__(self, *, num_layers: int, rows: int, kv_heads: int, context: int, head_size: int, dtype: np.dtype[Any]) -> None:
        """Raises MemoryError when the system refuses to reserve the addresses."""
        token_bytes = kv_heads * head_size * dtype.itemsize
        self.context = _round_up(context, PAGE_BYTES // math.gcd(PAGE_BYTES, token_bytes))
        self.rows = rows
        self.bytes_per_token = 2 * num_layers * token_bytes
        self.held = [0] * rows
        self.touched = [0] * rows
        self._row_bytes = self.context * token_bytes
        size = 2 * num_layers * rows * self._row_bytes + self._row_bytes + HUGE_BYTES
        self._region = _reserve(size)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._region))
        self._base = _round_up(start, HUGE_BYTES) - start
        self._spare = self._base + 2 * num_layers * rows * self._row_bytes
        shape = (rows, kv_heads, self.context, head_size)
        step = rows * self._row_bytes
        self.layers: list[NDArray[np.generic]] = [
            np.ndarray(shape, dtype, buffer=self._region, offset=self._base + i * step) for i in range(2 * num_layers)
        ]
        self._remapper = _Remapper(start) if 2 * num_layers * rows < MAX_REGIONS and _Remapper.works() else None

    def move(self, source: int, target: int) -> None:
        """Moves the content of row `source` to row `target`, whose content is lost; `source` is free afterwards."""
        if self.held[source] * self.bytes_per_token < REMAP_ABOVE_BYTES or self._remapper is None:
            self.copy(source, target, self.held[source])
            return
        for layer in range(len(self.layers)):
            self._remapper.exchange(self._offset(layer, source), self._offset(layer, target), self._spare, self._row_bytes)
        for counts in (self.held, self.touched):
            counts[source], counts[target] = counts[target], counts[source]

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copies the first num_tokens of row `source` to row `target`; if `target` held much more, its memory is released."""
        if self.touched[target] - num_tokens > STALE_TOKENS:
            self.free(target)
        for array in self.layers:
            array[target, :, :num_tokens] = array[source, :, :num_tokens]
        self.wrote(target, num_tokens)

    def wrote(self, row: int, num_tokens: int) -> None:
        """Records that the row holds its first num_tokens tokens; what is beyond is free."""
        self.held[row] = num_tokens
        self.touched[row] = max(self.touched[row], num_tokens)

    def free(self, row: int) -> None:
        """Gives the row's pages back to the system; it reads as zeros afterwards."""
        if not self.touched[row]:
            return
        if _IS_LINUX:
            for layer in range(len(self.layers)):
                self._region.madvise(_DONTNEED, self._offset(layer, row), self._row_bytes)
        self.held[row] = self.touched[row] = 0

    def backed_bytes(self) -> int:
        return sum(self.touched) * self.bytes_per_token

    def _offset(self, layer: int, row: int) -> int:
        return self._base + (layer * self.rows + row) * self._row_bytes


class _Remapper:
    """Moves pages instead of bytes: mremap with MREMAP_DONTUNMAP (Linux 5.7 and later), see mremap(2)."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._mremap = _libc_mremap()

    @staticmethod
    def works() -> bool:
        """Tries it once on a page of its own: old kernels, sandboxes and other systems refuse."""
        if not _IS_LINUX:
            return False
        probe = _reserve(3 * PAGE_BYTES)
        probe[0], probe[PAGE_BYTES] = 1, 2
        handle = ctypes.c_char.from_buffer(probe)
        try:
            _Remapper(ctypes.addressof(handle)).exchange(0, PAGE_BYTES, 2 * PAGE_BYTES, PAGE_BYTES)
        except OSError:
            return False
        return (probe[0], probe[PAGE_BYTES]) == (2, 1)

    def exchange(self, a: int, b: int, spare: int, size: int) -> None:
        for source, target in ((a, spare), (b, a), (spare, b)):
            moved = self._mremap(self._start + source, size, size, _REMAP_FLAGS, self._start + target)
            if moved != self._start + target:
                raise OSError(ctypes.get_errno(), "mremap could not move a KV row")


def _libc_mremap() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None, use_errno=True).mremap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    return function


def _reserve(size: int) -> mmap.mmap:
    try:
        if _IS_LINUX:
            region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
            region.madvise(_NOHUGEPAGE)
            return region
        return mmap.mmap(-1, size)
    except OSError as error:
        raise MemoryError(
            f"cannot reserve {size / 2**30:.1f} GiB of addresses for KV rows ({error}); lower num_slots or context_length"
        ) from error


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
