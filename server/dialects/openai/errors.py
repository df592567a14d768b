"""Errors as OpenAI's clients read them: its envelope, its types, and its names for the parts of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from runtime.protocol.errors import Field, InvalidRequest
from server.http.errors import ErrorKind, ErrorReply

FieldNames = Mapping[str, str]  # by `Field`, which is a str

_TYPES: Mapping[ErrorKind, str] = {
    ErrorKind.INVALID: "invalid_request_error",
    ErrorKind.AUTHENTICATION: "authentication_error",
    ErrorKind.PERMISSION: "permission_error",
    ErrorKind.RATE_LIMIT: "rate_limit_error",
    ErrorKind.SERVER: "server_error",
    ErrorKind.NOT_IMPLEMENTED: "not_implemented_error",
}
FIELD_NAMES: FieldNames = {
    **{field: field.value for field in Field},
    Field.CONVERSATION: "messages",
    Field.TOKEN_IDS: "tokens",
    Field.NUM_CHOICES: "n",
    Field.CONTINUATION: "continue_final_message",
    Field.FORM: "response_format",
    Field.THINKING_BUDGET: "thinking_token_budget",
}
_QUOTED = re.compile(r"`(\w+)`")


class InvalidParam(InvalidRequest):
    """The request is at fault, as its dialect found before it was translated. param: the field, by the dots that lead to it."""

    def __init__(self, message: str, *, param: str, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.param = param


class OpenAIErrors:
    """An `ErrorWriter`. names: of the parts of a request that may be called otherwise in each request."""

    def __init__(self, names: FieldNames = FIELD_NAMES) -> None:
        self._names = names

    def body(self, reply: ErrorReply) -> bytes:
        param = self._names[reply.field] if reply.param is None and reply.field is not None else reply.param
        error: dict[str, Any] = {
            "message": self._reworded(reply.message),
            "type": _TYPES[reply.kind],
            "param": param,
            "code": reply.code,
        }
        if reply.problems:
            error["problems"] = reply.problems
        return msgspec.json.encode({"error": error})

    def event(self, reply: ErrorReply) -> bytes:
        return b"data: " + self.body(reply) + b"\n\n"

    def _reworded(self, message: str) -> str:
        """With OpenAI's names for what the message quotes by the runtime's."""
        return _QUOTED.sub(lambda quoted: self._names.get(quoted[1], quoted[0]), message)


def openai_errors(path: str) -> OpenAIErrors:
    """How the errors of requests to this path are written: all as OpenAI's, until another dialect has paths of its own."""
    return OpenAIErrors()
