"""Panics of libraries written in Rust, as Python sees them: `pyo3_runtime.PanicException`, no `Exception`, and not importable.

A panic unwinds to the call that caused it. The library's objects stay usable where that call only reads (a regex that gives up).
"""

from __future__ import annotations


def is_panic(error: BaseException) -> bool:
    return (type(error).__module__, type(error).__name__) == ("pyo3_runtime", "PanicException")
