"""What a job's params refer to: `@ID` for the version that another job makes. Uploaded files are `admission`'s. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_JOB = re.compile(r"@([A-Za-z0-9_-]+)")


def jobs_in(params: Any) -> tuple[str, ...]:
    """Ids of the jobs whose versions the params name, each once, in order."""
    found = (match[1] for text in texts_in(params) if (match := _JOB.fullmatch(text)))
    return tuple(dict.fromkeys(found))


def resolved(params: Any, version_of: Callable[[str], str]) -> Any:
    """The params with versions' labels in place of jobs. Raises what the function raises."""
    if isinstance(params, Mapping):
        return {key: resolved(value, version_of) for key, value in params.items()}
    if isinstance(params, list | tuple):
        return [resolved(value, version_of) for value in params]
    return version_of(match[1]) if isinstance(params, str) and (match := _JOB.fullmatch(params)) else params


def texts_in(value: Any) -> Iterator[str]:
    """Every text among the params' values, wherever it is."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts_in(each)
