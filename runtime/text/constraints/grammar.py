"""A request's grammar as Lark, and the compiler's complaints in a caller's words. Knows no tokenizer and no row."""

from __future__ import annotations

import json
import re
from typing import Any

from runtime.protocol.errors import InvalidRequest
from runtime.protocol.request import Grammar, GrammarKind
from runtime.text.constraints.lark import json_rule, literal

MAX_BYTES = 1_000_000
MAX_REASON_CHARS = 600  # the library quotes a whole regular expression
_HALF = MAX_REASON_CHARS // 2
FORMATS = "date-time, time, date, duration, email, hostname, ipv4, ipv6, uuid and uri"
_EXCERPT = re.compile(r"^ *(\d+ \| .*|\^)$|^<.*/>$", re.MULTILINE)
_START = re.compile(r"^start:", re.MULTILINE)
_PLACE = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")
_NOISE = re.compile(r"failed to compile JSON schema: |; following special tokens are available.*|<backtrace>.*", re.DOTALL)
# The search for forced text does not end in every grammar that a client may think of (`/a+/ /a+/`). The last such line counts.
_UNFORCED = '%llguidance {"no_forcing": true}'
_ASCII_CLASSES = "d"  # as vLLM's: \d means 0 to 9


def to_lark(grammar: Grammar) -> str:
    """Raises InvalidRequest: for a source that is too large, or cannot be read, or whose schema cannot be guaranteed."""
    if len(grammar.source.encode()) > MAX_BYTES:
        raise _invalid(grammar, f"it is larger than {MAX_BYTES} bytes. Send a smaller one")
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return "start: " + _json_rule(grammar)
        case GrammarKind.REGEX:
            from llguidance import regex_to_lark

            return f"start: /{regex_to_lark(grammar.source, _ASCII_CLASSES)}/" if grammar.source else 'start: ""'
        case GrammarKind.CHOICE:
            return "start: CHOICE\nCHOICE: " + " | ".join(map(literal, _choices(grammar)))
        case GrammarKind.LARK:
            return f"{grammar.source}\n{_UNFORCED}"
        case GrammarKind.CALLS:
            return grammar.source


def either(calls: str, form: Grammar) -> str:
    """A Lark grammar of answers that follow one of both. calls: Lark; form: not Lark, whose rules could have the same names.

    Raises InvalidRequest, as `to_lark`.
    """
    alternatives = (("called", calls), ("formed", to_lark(form)))
    return "\n".join(["start: called | formed", *(_START.sub(f"{name}:", lark, count=1) for name, lark in alternatives)])


def refusal(grammar: Grammar, complaint: str) -> InvalidRequest:
    """complaint: llguidance's error for the grammar of `to_lark`, with excerpts of it, which are left out."""
    reason = re.sub(r"\s*\n\s*", " ", _EXCERPT.sub("", _NOISE.sub("", complaint)).strip())
    reason = reason if len(reason) <= MAX_REASON_CHARS else f"{reason[:_HALF]} ... {reason[-_HALF:]}"
    is_own_text = grammar.kind is GrammarKind.LARK
    reason = _PLACE.sub(r"line \1, column \2: " if is_own_text else "", reason)
    if (remedy := _schema_remedy(reason)) is not None:
        return InvalidRequest(f"The JSON Schema cannot be followed: {remedy}", field=grammar.field, code="unsupported_schema")
    if grammar.kind is GrammarKind.JSON_SCHEMA:
        message = f"The JSON Schema cannot be followed: {reason.rstrip('.')}. Change it, or use a simpler one."
        return InvalidRequest(message, field=grammar.field, code="unsupported_schema")
    return _invalid(grammar, f"{reason.rstrip('.')}. Change it, or use a simpler one")


def _schema_remedy(reason: str) -> str | None:
    """Clearer messages for the most frequent errors of schemas."""
    if match := re.search(r"Unimplemented keys: \[(.*?)\]", reason):
        several = "," in match[1]
        return f"{match[1]} {'are' if several else 'is'} not supported. Leave {'them' if several else 'it'} out."
    if match := re.search(r"Unknown format: (\S+)", reason):
        return f'"format" {json.dumps(match[1])} is not supported. Leave it out, or use one of {FORMATS}.'
    if "oneOf constraints are not supported" in reason:
        return '"oneOf" is supported only where its alternatives cannot overlap. Use "anyOf".'
    if match := re.search(r"Unsatisfiable schema: (.*)", reason):
        return f"nothing satisfies it: {match[1].rstrip('.')}. Correct it."
    if match := re.search(r"Resource '(.*?)' is not present", reason):
        return f'"$ref" or "$schema" names {match[1]}; other documents are never fetched. Put what it refers to under "$defs".'
    return None


def _invalid(grammar: Grammar, reason: str) -> InvalidRequest:
    noun = {GrammarKind.JSON_SCHEMA: "JSON Schema", GrammarKind.REGEX: "regular expression", GrammarKind.CHOICE: "choice"}
    return InvalidRequest(
        f"The {noun.get(grammar.kind, 'grammar')} cannot be followed: {reason}.", field=grammar.field, code="invalid_grammar"
    )


def _parsed(grammar: Grammar) -> Any:
    try:
        return json.loads(grammar.source, parse_constant=_not_json)
    except ValueError as error:
        raise _invalid(grammar, f"it is not JSON ({error}). Correct it") from error
    except RecursionError as error:
        raise _too_deep(grammar) from error


def _json_rule(grammar: Grammar) -> str:
    """What was read may still be too deep to be followed."""
    schema = _parsed(grammar)
    try:
        return json_rule(schema, field=grammar.field)
    except RecursionError as error:
        raise _too_deep(grammar) from error


def _too_deep(grammar: Grammar) -> InvalidRequest:
    return _invalid(grammar, "it is nested too deeply. Flatten it")


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


def _choices(grammar: Grammar) -> list[str]:
    match _parsed(grammar):
        case [*texts] if texts and all(isinstance(text, str) for text in texts):
            return texts
        case _:
            raise _invalid(grammar, "it must be a list of at least one text. Send texts to choose from")
