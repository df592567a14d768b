"""The page of the HTTP API: every route with its scope, its fields and its answers, from the app's own OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from docs.generators import markdown, schemas
from server.app import create_app
from server.http.access import Access, declared_access
from server.settings.daemon import Settings

INTRODUCTION = """\
Every route of the daemon, by what it is for. The daemon serves the same description at `/openapi.json`, for programs, and at
`/docs`, as a page. *Scope* is what a [key](../operate/security.md#scopes) needs once there are keys; a route that *changes
something* is refused to [pages of other origins](../operate/security.md#web-pages). Errors have one form: see [Errors](errors.md).

Bodies are strict JSON, [within limits](../use/clients.md#limits-of-a-request). `null` means the same as leaving a field out."""
TITLES = {
    "openai": "OpenAI's API",
    "tokens": "Tokens",
    "registry": "Registry",
    "admin": "Operation",
    "jobs": "Jobs",
    "probes": "Probes and metrics",
    "not implemented": "Not implemented",
}
OBJECTS = "What bodies and answers are made of. Of a request, a field that is not *required* may be left out."


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str
    access: Access | None
    document: Mapping[str, Any]

    @property
    def scope(self) -> str:
        if self.access is None or self.access.is_open:
            return "none, open to all"
        return " or ".join(markdown.code(scope.value) for scope in self.access.scopes) or "any key"

    @property
    def body(self) -> Mapping[str, Any]:
        return _schema(self.document.get("requestBody", {}).get("content", {}))

    def answers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Those that are no errors: status, and the schema of its content."""
        for status, answer in sorted(self.document["responses"].items()):
            if status.startswith("2"):
                yield status, _schema(answer.get("content", {}))

    def errors(self) -> list[str]:
        return sorted(status for status in self.document["responses"] if status[:1] in "45")


def _schema(content: Mapping[str, Any]) -> dict[str, Any]:
    """Of a body or an answer, by its first media type; empty where it has none."""
    for described in content.values():
        return dict(described.get("schema", {}))
    return {}


def page() -> str:
    document, operations = _operations()
    known = document["components"]["schemas"]
    shown: dict[str, Operation] = {}  # objects of bodies, by the route that has their fields
    parts: list[str] = []
    for tag in dict.fromkeys([*TITLES, *(_tag(each) for each in operations)]):
        here = [each for each in operations if _tag(each) == tag]
        if here:
            parts += [f"## {TITLES.get(tag, tag.capitalize())}", _overview(here)]
        for each in here if tag != "not implemented" else ():
            parts += [*_described(each, known), *_body(each, known, shown), _outcome(each, known)]
    used = [*(each.body for each in operations), *(schema for each in operations for _, schema in each.answers())]
    names = [name for name in schemas.reachable(used, known) if name not in shown]
    return markdown.page("HTTP API", INTRODUCTION, *parts, "## Objects", OBJECTS, *_objects(names, known))


def _operations() -> tuple[dict[str, Any], list[Operation]]:
    app = create_app(Settings(engine="fake", home=Path("nowhere"), port=0))
    document = app.openapi()
    access = _access_by_route(app)
    found = [
        Operation(method.upper(), path, access.get((method.upper(), path)), operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return document, found


def _access_by_route(app: FastAPI) -> dict[tuple[str, str], Access | None]:
    return {
        (method, route.path.replace(":path}", "}")): declared_access(route.endpoint)
        for route in _flat(app.routes)
        for method in route.methods
    }


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    """FastAPI keeps an included router as one entry."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _flat(inner.routes)
        elif hasattr(route, "endpoint"):
            yield route


def _tag(operation: Operation) -> str:
    return str(next(iter(operation.document.get("tags", ())), "admin"))


def _overview(operations: Iterable[Operation]) -> str:
    rows = [
        (markdown.code(f"{each.method} {each.path}"), markdown.sentence(each.document["summary"]), each.scope, _changes(each))
        for each in operations
    ]
    return markdown.table(("route", "does", "scope", "changes something"), rows)


def _changes(operation: Operation) -> str:
    return "yes" if operation.access is not None and operation.access.changes_state else "no"


def _described(operation: Operation, known: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{operation.method} {operation.path}`"
    yield "\n\n".join(
        " ".join(part.split())
        for part in (markdown.sentence(operation.document["summary"]), operation.document.get("description", ""))
        if part
    )
    yield _parameters(operation.document.get("parameters", ()), known)


def _body(operation: Operation, known: Mapping[str, Any], shown: dict[str, Operation]) -> Iterator[str]:
    """The fields of the body, or where they are already."""
    names = schemas.objects_in(operation.body)
    for name in names:
        first = shown.setdefault(name, operation)
        if first is not operation:
            yield f"Body: as of `{first.method} {first.path}`."
            continue
        yield f"Body, one of several, {name}:" if len(names) > 1 else "Body:"
        yield schemas.introduction(known[name])
        yield schemas.fields(known[name], known)


def _outcome(operation: Operation, known: Mapping[str, Any]) -> str:
    answers = [f"{status} {schemas.type_of(schema, known) if schema else ''}".strip() for status, schema in operation.answers()]
    errors = f" Errors: {', '.join(operation.errors())}." if operation.errors() else ""
    return f"Scope: {operation.scope}. Answers: {', '.join(answers) or 'none'}.{errors}"


def _parameters(parameters: Iterable[Mapping[str, Any]], known: Mapping[str, Any]) -> str:
    rows = [
        (
            markdown.code(each["name"]),
            each["in"],
            schemas.type_of(each["schema"], known),
            "required" if each["required"] else schemas.default_of(each["schema"]),
            markdown.sentence(each.get("description", "")),
        )
        for each in parameters
    ]
    return markdown.table(("parameter", "in", "type", "default", "meaning"), rows)


def _objects(names: Iterable[str], known: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(names):
        yield f"### {name}"
        yield schemas.introduction(known[name])
        yield schemas.fields(known[name], known)
