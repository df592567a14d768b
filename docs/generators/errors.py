"""The page of errors: the table of `server/http/errors.py`, and the codes that exceptions carry.

Raises LookupError when the source has a code without a meaning, or a meaning is of a code that is gone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from docs.generators import markdown
from docs.generators.error_meanings import MEANINGS, OF_JOBS, STATUSES
from server.http.errors import BY_STATUS, TABLE, UNEXPECTED

ROOT = Path(__file__).parents[2]
PACKAGES = ("server", "jobs", "runtime", "model_registry")
INTRODUCTION = """\
Every error has OpenAI's form, on every path. `message` says what was wrong and what to do, `param` names the field at fault, and
`code` is for programs:

```json
{"error": {"message": "...", "type": "invalid_request_error", "param": "temperature", "code": "invalid_value"}}
```

After the first chunk of a stream an error is an event `data: {"error": {...}}`, and the stream ends without `[DONE]`. With 429 and
most of 503 comes a header `Retry-After`, in seconds. More than 256 headers, or about 64 KiB of them, are a 431 without a body,
after which the connection is closed. Symptoms and what to do: [Troubleshooting](../operate/troubleshooting.md)."""
OF_JOBS_INTRODUCTION = """\
A job that failed has the cause in its `failure`: `slmops jobs show JOB`. A job that cannot be planned is refused with the same
codes, by 400 or 422."""


def page() -> str:
    by_status = _by_status()
    _check({code for codes in by_status.values() for code in codes})
    rows = [
        (str(status), markdown.code(code), MEANINGS[code]) for status, codes in sorted(by_status.items()) for code in sorted(codes)
    ]
    jobs = [(markdown.code(code), MEANINGS[code]) for code in sorted(OF_JOBS)]
    return markdown.page(
        "Errors",
        INTRODUCTION,
        "## By status",
        markdown.table(("status", "code", "meaning, and what to do"), rows),
        "## Failures of jobs",
        OF_JOBS_INTRODUCTION,
        markdown.table(("code", "meaning, and what to do"), jobs),
    )


def _by_status() -> dict[int, set[str]]:
    found = {status: set(codes) for status, codes in STATUSES.items()}
    for rule in (*TABLE.values(), *BY_STATUS.values(), UNEXPECTED):
        found.setdefault(rule.status, set()).add(str(rule.code))
    return found


def _check(answered: set[str]) -> None:
    """answered: the codes of the table of statuses. Raises LookupError."""
    used, texts = set(), set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used |= set(_codes(tree))
        texts |= {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    if unknown := (used | answered | set(OF_JOBS)) - set(MEANINGS):
        raise LookupError(f"docs/generators/error_meanings.py explains no code {', '.join(sorted(unknown))}")
    if missing := used - answered - set(OF_JOBS):
        raise LookupError(f"docs/generators/error_meanings.py gives no status to {', '.join(sorted(missing))}")
    if gone := {code for code in MEANINGS if not any(code in text for text in texts)}:
        raise LookupError(f"docs/generators/error_meanings.py explains what no source has: {', '.join(sorted(gone))}")


def _codes(tree: ast.AST) -> Iterator[str]:
    """Every `code="..."` of a call, and every text that is assigned to `code`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        elif isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == "code" for each in node.targets):
            values = [node.value]
        else:
            continue
        yield from (value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str))
