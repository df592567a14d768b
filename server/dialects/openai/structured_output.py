"""The form of the answer that a request prescribes, in any of its fields, as one Grammar.

Pure; the worker finds out whether it compiles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from runtime.protocol.request import Grammar, GrammarKind
from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.near_misses import refuse_unknown
from server.dialects.openai.refusals import RESPONSE_FORMAT, STRUCTURED_OUTPUTS, refuse_unsupported
from server.dialects.openai.wire.sampling import SamplingFields
from server.dialects.openai.wire.structured_output import ResponseFormat, StructuredOutputs

_ANY_OBJECT = {"type": "object"}
_OUTPUTS = "structured_outputs"


class _Given(NamedTuple):
    """A field that requests a form: its name, by dots, what kind of grammar its value is, and the value."""

    param: str
    kind: GrammarKind
    value: Any

    def grammar(self) -> Grammar:
        is_json = self.kind in (GrammarKind.JSON_SCHEMA, GrammarKind.CHOICE)
        return Grammar(kind=self.kind, source=msgspec.json.encode(self.value).decode() if is_json else self.value)


def grammar_of(request: SamplingFields) -> Grammar | None:
    """None: any text. Raises InvalidParam when more than one field requests a form, or for something not supported."""
    _check_response_format(request.response_format)
    _check_structured_outputs(request.structured_outputs)
    given = _given(request)
    if len(given) > 1:
        first, second = given[0].param.split(".")[0], given[1].param
        raise InvalidParam(f"{first!r} and {second!r} both prescribe the form of the answer: send one of them.", param=second)
    return given[0].grammar() if given else None


def form_param(request: SamplingFields) -> str:
    """The field that requests a form, by dots; `response_format` when none does."""
    given = _given(request)
    return given[0].param if given else "response_format"


def _given(request: SamplingFields) -> list[_Given]:
    fields = (
        _in_response_format(request.response_format),
        _in_structured_outputs(request.structured_outputs),
        _Given("guided_json", GrammarKind.JSON_SCHEMA, request.guided_json),
        _Given("guided_regex", GrammarKind.REGEX, request.guided_regex),
        _Given("guided_choice", GrammarKind.CHOICE, request.guided_choice),
        _Given("guided_grammar", GrammarKind.LARK, request.guided_grammar),
    )
    return [each for each in fields if each is not None and _is_requested(each)]


def _is_requested(given: _Given) -> bool:
    """An empty schema requests any JSON; an empty text or choice requests nothing."""
    return given.value is not None if given.kind is GrammarKind.JSON_SCHEMA else bool(given.value)


def _in_response_format(requested: ResponseFormat | None) -> _Given | None:
    if requested is None:
        return None
    if requested.json_schema is not None:
        return _Given("response_format.json_schema.schema", GrammarKind.JSON_SCHEMA, requested.json_schema.schema_)
    return _Given("response_format", GrammarKind.JSON_SCHEMA, _ANY_OBJECT) if requested.type == "json_object" else None


def _in_structured_outputs(requested: StructuredOutputs | None) -> _Given | None:
    if requested is None:
        return None
    fields = (
        _Given(f"{_OUTPUTS}.json", GrammarKind.JSON_SCHEMA, requested.json_),
        _Given(f"{_OUTPUTS}.regex", GrammarKind.REGEX, requested.regex),
        _Given(f"{_OUTPUTS}.choice", GrammarKind.CHOICE, requested.choice),
        _Given(f"{_OUTPUTS}.grammar", GrammarKind.LARK, requested.grammar),
        _Given(f"{_OUTPUTS}.json_object", GrammarKind.JSON_SCHEMA, _ANY_OBJECT if requested.json_object else None),
    )
    return next((each for each in fields if _is_requested(each)), None)


def _check_response_format(requested: ResponseFormat | None) -> None:
    if requested is None:
        return
    refuse_unsupported(requested.model_extra or {}, RESPONSE_FORMAT, within="response_format")
    refuse_unknown(requested, "response_format")
    if requested.json_schema is not None:
        refuse_unknown(requested.json_schema, "response_format.json_schema")


def _check_structured_outputs(requested: StructuredOutputs | None) -> None:
    if requested is None:
        return
    refuse_unsupported(requested.model_extra or {}, STRUCTURED_OUTPUTS, within=_OUTPUTS)
    refuse_unknown(requested, _OUTPUTS, harmless=[row.field for row in STRUCTURED_OUTPUTS])
    if _in_structured_outputs(requested) is None and requested.json_object is None:
        fields = "json, regex, choice, grammar or json_object"
        raise InvalidParam(f"{_OUTPUTS!r} constrains nothing: send one of {fields} in it, or leave it out.", param=_OUTPUTS)
