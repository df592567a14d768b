"""What a request says of its answer's form, in any of its fields, as one Grammar. Pure; whether it compiles, the worker says."""

from __future__ import annotations

from typing import Any

import msgspec

from runtime.errors import InvalidRequest
from runtime.request import Grammar, GrammarKind
from server.openai.near_misses import refuse_unknown
from server.openai.refusals import RESPONSE_FORMAT, STRUCTURED_OUTPUTS, refuse_unsupported
from server.openai.wire.sampling import SamplingFields
from server.openai.wire.structured_output import ResponseFormat, StructuredOutputs

_ANY_OBJECT = {"type": "object"}


def grammar_of(request: SamplingFields) -> Grammar | None:
    """None: any text. Raises InvalidRequest when more than one field asks for a form, or for something not supported."""
    grammars = [
        _by_response_format(request.response_format),
        _by_structured_outputs(request.structured_outputs),
        _by_schema(request.guided_json, "guided_json"),
        _by_text(GrammarKind.REGEX, request.guided_regex, "guided_regex"),
        _by_choice(request.guided_choice, "guided_choice"),
        _by_text(GrammarKind.LARK, request.guided_grammar, "guided_grammar"),
    ]
    given = [grammar for grammar in grammars if grammar is not None]
    if len(given) > 1:
        first, second = given[0].param.split(".")[0], given[1].param
        raise InvalidRequest(f"{first!r} and {second!r} both say what the answer looks like: send one of them.", param=second)
    return given[0] if given else None


def _by_response_format(asked: ResponseFormat | None) -> Grammar | None:
    if asked is None:
        return None
    refuse_unsupported(asked.model_extra or {}, RESPONSE_FORMAT, within="response_format")
    refuse_unknown(asked, "response_format")
    if asked.json_schema is not None:
        refuse_unknown(asked.json_schema, "response_format.json_schema")
        return _by_schema(asked.json_schema.schema_, "response_format.json_schema.schema")
    return _by_schema(_ANY_OBJECT, "response_format") if asked.type == "json_object" else None


def _by_structured_outputs(asked: StructuredOutputs | None) -> Grammar | None:
    if asked is None:
        return None
    within = "structured_outputs"
    refuse_unsupported(asked.model_extra or {}, STRUCTURED_OUTPUTS, within=within)
    refuse_unknown(asked, within, harmless=[row.field for row in STRUCTURED_OUTPUTS])
    grammar = (
        _by_schema(asked.json_, f"{within}.json")
        or _by_text(GrammarKind.REGEX, asked.regex, f"{within}.regex")
        or _by_choice(asked.choice, f"{within}.choice")
        or _by_text(GrammarKind.LARK, asked.grammar, f"{within}.grammar")
        or (_by_schema(_ANY_OBJECT, f"{within}.json_object") if asked.json_object else None)
    )
    if grammar is None and asked.json_object is None:
        fields = "json, regex, choice, grammar or json_object"
        raise InvalidRequest(f"{within!r} constrains nothing: send one of {fields} in it, or leave it out.", param=within)
    return grammar


def _by_schema(schema: dict[str, Any] | None, param: str) -> Grammar | None:
    if schema is None:
        return None
    return Grammar(kind=GrammarKind.JSON_SCHEMA, source=msgspec.json.encode(schema).decode(), param=param)


def _by_choice(choice: list[str] | None, param: str) -> Grammar | None:
    return Grammar(kind=GrammarKind.CHOICE, source=msgspec.json.encode(choice).decode(), param=param) if choice else None


def _by_text(kind: GrammarKind, text: str | None, param: str) -> Grammar | None:
    return Grammar(kind=kind, source=text, param=param) if text else None
