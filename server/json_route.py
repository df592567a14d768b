"""Routes whose body is JSON, strictly: UTF-8, no NaN, no Infinity, whatever content type is claimed. Knows no fields.

What a body holds is counted before it is decoded, in slices between which the event loop serves others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from server.access import GuardedRoute
from server.body_errors import BodyTooComplex, InvalidBody
from server.json_meter import SLICE_BYTES, JsonLimits, JsonMeter, TooComplex
from server.text_encoding import why_not_utf8, without_bom

_HALF_PAIR = "half of a surrogate pair, which is no character: send whole characters"


class JsonRequest(Request):
    """Raises InvalidBody and BodyTooComplex, whose messages never quote the body."""

    limits = JsonLimits()

    async def json(self) -> Any:
        body = without_bom(await self.body())
        meter = JsonMeter(self.limits)
        try:
            for start in range(0, len(body), SLICE_BYTES):
                meter.feed(body[start : start + SLICE_BYTES])
                if start:
                    await asyncio.sleep(0)
        except TooComplex as error:
            raise BodyTooComplex(str(error)) from None
        try:
            return msgspec.json.decode(body)
        except RecursionError:
            raise InvalidBody("it is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise await asyncio.to_thread(_explain, body, str(error)) from None


class JsonRoute(GuardedRoute):
    """limits: of what a body holds; these let every prompt and conversation pass."""

    limits: ClassVar[JsonLimits] = JsonLimits()

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            json_request = JsonRequest(_as_json(request.scope), request.receive)
            json_request.limits = self.limits
            return await handler(json_request)

        return handle


class SmallJsonRoute(JsonRoute):
    """For bodies that are never long: models, jobs and their parameters."""

    limits = JsonLimits(num_values=1 << 14, num_members=1 << 13, depth=100)  # params are walked by recursion


def _as_json(scope: Scope) -> Scope:
    """People forget curl's content type. Pages of other origins, for whom it would matter, are stopped elsewhere."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


def _explain(body: bytes, problem: str) -> InvalidBody:
    """problem: the decoder's words, for when nothing better is known."""
    encoding = why_not_utf8(body)
    if encoding is not None:
        return InvalidBody(encoding)
    if b"\\ud" not in body.lower():
        return InvalidBody(problem)
    try:
        value = json.loads(body)  # unlike the strict decoder, takes half a pair
    except ValueError:
        return InvalidBody(problem)
    path = next(_half_pairs(value, ()), None)
    if path is None:
        return InvalidBody(problem)
    where = ".".join(path)
    return InvalidBody(f"{where or 'the body'!r} holds {_HALF_PAIR}", where or None)


def _half_pairs(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths of the texts that hold half a surrogate pair; of an object whose name for something does, its own path."""
    if isinstance(value, str):
        if not _is_whole(value):
            yield path
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _half_pairs(each, (*path, name)) if _is_whole(name) else iter((path,))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _half_pairs(each, (*path, str(index)))


def _is_whole(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
