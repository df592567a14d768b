"""Routes whose body is JSON, strictly: UTF-8, no NaN, no Infinity, whatever content type is claimed.

The values in a body are counted in its bytes before it is decoded (`JsonMeter`), in slices between which the event loop serves
others, because a decoder holds the interpreter lock and makes up to 70 bytes of one: 8 MB of `[[],[],...]` become 185 MB. Knows no
fields.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from model_registry.text_files import binary_format_of, why_not_utf8, without_bom
from server.http.access import GuardedRoute
from server.http.body_errors import BodyTooComplex, InvalidBody

SLICE_BYTES = 1 << 16  # counted within a millisecond or two, whatever it holds
_GZIP = "it is compressed with gzip without a header for it: decompress it, or send the header 'Content-Encoding: gzip'"
_DIGITS = b"0123456789"
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NOT_BRACKETS = bytes(set(range(256)) - _STEPS.keys())


class TooComplex(Exception):
    """A JSON text exceeds a limit; the message names it, as in `has more than 5 values`."""


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """What a JSON text may hold. num_values: elements of arrays and values of objects, with those inside them.

    num_members: arrays, objects, and the names in objects, which take ten times the memory of a number.
    digits: of one number, since reading it takes time that grows with their square. num_digits: of all numbers together.
    """

    num_values: int = 1 << 19  # a prompt of half a million token ids
    num_members: int = 1 << 16  # 4,096 messages with calls, and 128 tools
    depth: int = 512
    digits: int = 512
    num_digits: int = 1 << 22  # half a million token ids of eight; fractions of twenty take ten times as long to read


class JsonMeter:
    """Counts a text that is fed in slices. Raises TooComplex as soon as a limit is passed.

    A valid text holds no more than is counted. Of one that is not valid, a decoder has made no more than that when it stops.
    """

    def __init__(self, limits: JsonLimits) -> None:
        self._limits = limits
        self._carry = b""
        self._is_inside_text = False
        self._is_broken = False
        self._depth = 0
        self.num_values = 1
        self.num_members = 0
        self.num_digits = 0

    def feed(self, part: bytes) -> None:
        """part: at most SLICE_BYTES, so that the caller may let others run between the slices."""
        if self._is_broken:
            return
        text = self._carry + part
        num_escapes = len(text) - len(text.rstrip(b"\\"))
        self._carry = b"\\" * (num_escapes % 2)
        text = text[: len(text) - len(self._carry)]
        if b"\\" in text:
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = text.split(b'"')
        outside = b"".join(pieces[self._is_inside_text :: 2])
        self._is_inside_text ^= len(pieces) % 2 == 0
        if outside:
            self._count(outside)

    def _count(self, outside: bytes) -> None:
        num_opened = outside.count(b"[") + outside.count(b"{")
        self.num_values += outside.count(b",") + num_opened
        self.num_members += outside.count(b":") + num_opened
        if self.num_values > self._limits.num_values:
            raise TooComplex(f"has more than {self._limits.num_values} values; send fewer")
        if self.num_members > self._limits.num_members:
            raise TooComplex(f"has more than {self._limits.num_members} arrays, objects and fields; send fewer")
        self._follow_depth(outside)
        num_digits = len(outside) - len(outside.translate(None, _DIGITS))
        self.num_digits += num_digits
        if self.num_digits > self._limits.num_digits:
            raise TooComplex(f"has numbers of more than {self._limits.num_digits} digits altogether; send fewer")
        if num_digits > self._limits.digits and self._has_long_number(outside):
            raise TooComplex(f"has a number of more than {self._limits.digits} digits; send it as text")

    def _follow_depth(self, outside: bytes) -> None:
        depths = list(accumulate(map(_STEPS.__getitem__, outside.translate(None, _NOT_BRACKETS)), initial=self._depth))
        self._depth = depths[-1]
        self._is_broken = self._depth < 0  # no decoder reads beyond
        if max(depths) > self._limits.depth:
            raise TooComplex(f"is nested more than {self._limits.depth} deep; send something flatter")

    def _has_long_number(self, outside: bytes) -> bool:
        marked = outside.translate(_DIGITS_AS_ZEROS)
        return b"0" * (self._limits.digits + 1) in marked


_DIGITS_AS_ZEROS = bytes.maketrans(_DIGITS, b"0" * len(_DIGITS))


def measure(text: bytes, limits: JsonLimits) -> JsonMeter:
    """The whole text at once: for texts inside of fields. Raises TooComplex."""
    meter = JsonMeter(limits)
    for start in range(0, len(text), SLICE_BYTES):
        meter.feed(text[start : start + SLICE_BYTES])
    return meter


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
    """A JSON route for bodies that are never long: models, jobs and their parameters."""

    limits = JsonLimits(num_values=1 << 14, num_members=1 << 13, depth=100)  # params are walked by recursion


def _as_json(scope: Scope) -> Scope:
    """A missing or wrong content type is accepted, since curl users forget it.

    Cross-origin pages, for which it would matter, are refused elsewhere.
    """
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


def _explain(body: bytes, problem: str) -> InvalidBody:
    """problem: the decoder's words, for when nothing better is known."""
    encoding = _GZIP if binary_format_of(body) == "gzip" else why_not_utf8(body)
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
