"""Fields that are nearly ones of this API: refused where they would constrain the answer, warned of elsewhere. Pure.

An answer that ignores a constraint looks right until a program reads it; an ignored limit or penalty is seen at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any

from pydantic import BaseModel

from server.dialects.openai.errors import InvalidParam

_ALIKE = 0.86  # of difflib: one letter of seven; `tool_ids` is not `tools`, `top_a` not `top_p`
_MOST_READ, _MOST_COMPARED = 1024, 32  # of unknown fields; comparing takes a while
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_CONSTRAINING = (
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "tools",
    "tool_choice",
    "functions",
    "function_call",
)
_FORM = "response_format or structured_outputs"
_OTHER_CONSTRAINTS = {  # of other APIs, without case and underscores -> what there is here
    "guideddecoding": _FORM,
    "guidedjsonobject": "response_format",
    "responseschema": "response_format",
    "responsejsonschema": "response_format",
    "responsemimetype": "response_format",
    "outputformat": "response_format",
    "outputschema": "response_format",
    "outputconfig": "response_format",
    "jsonmode": "response_format",
    "jsonobject": "response_format",
    "schema": "response_format",
    "inputschema": "tools",
    "toolconfig": "tool_choice",
    "extrabody": "its entries as fields of the request, which is what OpenAI's Python client makes of its argument extra_body",
}
_OTHER_NAMES = {
    "maxoutputtokens": "max_tokens",
    "maxnewtokens": "max_tokens",
    "maxlength": "max_tokens",
    "candidatecount": "n",
    "temp": "temperature",
    "system": "messages, with one of the role system",
}
_ANNOTATIONS = frozenset({"cache_control", "return", "returns", "title", "annotations", "examples", "$schema"})


def refuse_near_constraints(unknown: Mapping[str, Any]) -> None:
    """unknown: the fields of a request that its wire model does not name. Raises InvalidParam."""
    if _has_text_format(unknown.get("text")):
        raise _refusal("text.format", "response_format")
    given = [name for name in _named(unknown) if name not in _CONSTRAINING]
    for name in given:
        instead = _OTHER_CONSTRAINTS.get(_plain(name))
        if instead is not None and unknown[name] != {}:
            raise _refusal(name, instead)
    for name in given[:_MOST_COMPARED]:
        nearest = _nearest(name, _CONSTRAINING)
        if nearest is not None:
            raise _refusal(name, nearest)


def warnings_of(request: BaseModel) -> list[str]:
    """A sentence per unknown field that is nearly one of the request's; ASCII, as a header takes it."""
    meant = _meant(request, _OTHER_NAMES)
    options = getattr(request, "stream_options", None)
    if isinstance(options, BaseModel):
        meant |= {f"stream_options.{name}": f"stream_options.{field}" for name, field in _meant(options, {}).items()}
    return [f"The field {name} is unknown and ignored; use {field}." for name, field in meant.items()]


def _meant(part: BaseModel, other_names: Mapping[str, str]) -> dict[str, str]:
    """Unknown fields, and those that were probably meant."""
    known = [field.alias or name for name, field in type(part).model_fields.items()]
    unknown = _named(part.model_extra or {})[:_MOST_COMPARED]
    found = {name: other_names.get(_plain(name)) or _nearest(name, known) for name in unknown}
    return {name: field for name, field in found.items() if field is not None}


def refuse_unknown(part: BaseModel, within: str, *, harmless: Collection[str] = ()) -> None:
    """For objects that exist to constrain an answer: every key counts but null ones and annotations. Raises InvalidParam.

    within: the dotted path of the object. harmless: keys that another table has decided on.
    """
    for name, value in (part.model_extra or {}).items():
        if value is None or name in harmless or name in _ANNOTATIONS or name.startswith("x-"):
            continue
        known = [field.alias or each for each, field in type(part).model_fields.items()]
        path = f"{within}.{name[:64]}"
        message = f"{path!r} is unknown and would have no effect: leave it out. {within!r} takes {', '.join(known)}."
        raise InvalidParam(message, param=path, code="unsupported_parameter")


def _named(unknown: Mapping[str, Any]) -> list[str]:
    """The unknown fields that could be meant for this API: their values are not null, their names well formed."""
    return [name for name, value in islice(unknown.items(), _MOST_READ) if value is not None and _NAME.fullmatch(name)]


def _refusal(name: str, instead: str) -> InvalidParam:
    message = f"{name!r} is no field of this API and would have no effect on the answer: use {instead}, or leave it out."
    return InvalidParam(message, param=name, code="unsupported_parameter")


def _has_text_format(text: Any) -> bool:
    """The Responses API's."""
    requested = text.get("format") if isinstance(text, dict) else None
    return requested is not None and requested != {"type": "text"}


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(".", "")


def _nearest(name: str, known: Collection[str]) -> str | None:
    by_plain = {_plain(each): each for each in known}
    plain = _plain(name)
    found = [plain] if plain in by_plain else get_close_matches(plain, by_plain, n=1, cutoff=_ALIKE)
    return by_plain[found[0]] if found else None
