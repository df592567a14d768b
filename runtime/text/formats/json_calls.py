"""Calls written as JSON objects: {"name": ..., "arguments": {...}}, alone or in lists. Knows nothing of the text around them."""

from __future__ import annotations

import json

from runtime.text.formats.reader import Reader, Script

ARGUMENTS_KEYS = ("arguments", "parameters")


def read_calls(reader: Reader, *, separator: str | None = None, needs_arguments: bool = False) -> Script[bool]:
    """A call, or a list of them in brackets. False: none; the place is then undefined.

    separator: what may stand between calls without brackets.
    """
    in_list = yield from reader.accept("[")
    if in_list:
        yield from reader.spaces()
        if (yield from reader.accept("]")):
            return True
    if not (yield from read_call(reader, needs_arguments=needs_arguments)):
        return False
    while True:
        place = reader.at
        yield from reader.spaces()
        if in_list and (yield from reader.accept("]")):
            return True
        between = "," if in_list else separator
        if between is not None and (yield from reader.accept(between)):
            yield from reader.spaces()
            if (yield from read_call(reader, needs_arguments=needs_arguments)):
                continue
        reader.back_to(place)
        return True


def read_closed_calls(reader: Reader, close: str) -> Script[bool]:
    """As `read_calls`, with spaces around and the text `close` behind, where an answer that was cut short may lack it."""
    yield from reader.spaces()
    if not (yield from read_calls(reader)):
        return False
    yield from reader.spaces()
    yield from reader.accept(close)
    return True


def read_calls_or_text(reader: Reader) -> Script[None]:
    """An answer that is calls, from a brace on, maybe in a fence; else it is text."""
    yield from reader.attempt(read_bare_calls)
    yield from reader.emit_until(())


def read_bare_calls(reader: Reader) -> Script[bool]:
    """Calls as objects, one after the other, or in a list under the key `tool_calls`. False as in `read_calls`."""
    yield from reader.spaces()
    fenced = yield from reader.accept("```")
    if fenced:
        _ = (yield from reader.accept("json")) or (yield from reader.accept("tool_code"))
        yield from reader.spaces()
    if (yield from reader.peek()) != "{":
        return False
    place = reader.at
    if not (yield from _read_wrapped(reader)):
        reader.back_to(place)
        if not (yield from read_calls(reader, separator=";", needs_arguments=True)):
            return False
    if fenced:
        yield from reader.spaces()
        yield from reader.accept("```")
    return True


def _read_wrapped(reader: Reader) -> Script[bool]:
    for literal in ("{", '"tool_calls"', ":"):
        if not (yield from reader.accept(literal)):
            return False
        yield from reader.spaces()
    if (yield from reader.peek()) != "[" or not (yield from read_calls(reader)):
        return False
    yield from reader.spaces()
    yield from reader.accept("}")
    return True


def read_call(reader: Reader, *, needs_arguments: bool = False) -> Script[bool]:
    """Reads one object. False: it is no call; nothing was emitted, and the reading position is undefined.

    The arguments are emitted as they arrive once the name is known. Other keys are skipped.
    needs_arguments: an object without them is no call, but some other JSON.
    """
    if not (yield from reader.accept("{")):
        return False
    name: str | None = None
    arguments: str | None = None
    begun = False
    while True:
        yield from reader.spaces()
        key = yield from _read_key(reader)
        if key is None:
            return begun
        on_text = None
        if key in ARGUMENTS_KEYS and name and not begun and (yield from reader.peek()) == "{":
            reader.begin_call(name)
            begun, on_text = True, reader.emit_arguments
        value = yield from reader.json(on_text)
        if value is None:
            return begun
        if key == "name" and not name:
            name = _text_of(value)
        elif key in ARGUMENTS_KEYS:
            arguments = value
        yield from reader.spaces()
        if not (yield from reader.accept(",")):
            break
    if not (yield from reader.accept("}")) or begun:
        return begun
    if not name or (needs_arguments and arguments is None):
        return False
    return _emit_whole(reader, name, arguments)


def _read_key(reader: Reader) -> Script[str | None]:
    """A key and its colon."""
    if (yield from reader.peek()) != '"':
        return None
    key = yield from reader.json()
    yield from reader.spaces()
    if key is None or not (yield from reader.accept(":")):
        return None
    yield from reader.spaces()
    return _text_of(key)


def _emit_whole(reader: Reader, name: str, arguments: str | None) -> bool:
    """A call whose arguments could not be emitted as they arrived: some models write them as a string of JSON, or not at all."""
    text = arguments or "{}"
    if text.startswith('"'):
        text = (_text_of(text) or "").strip()
    elif text == "null":
        text = "{}"
    if not text.startswith("{"):
        return False
    reader.begin_call(name)
    reader.emit_arguments(text)
    return True


def _text_of(value: str) -> str | None:
    """The value of a JSON string; None if it is none."""
    if not value.startswith('"'):
        return None
    try:
        text = json.loads(value, strict=False)
    except ValueError:
        return None
    return text if isinstance(text, str) else None
