"""Routes whose body is JSON, strictly: UTF-8, no NaN, no Infinity, whatever content type is claimed. Knows no fields."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from server.access import GuardedRoute
from server.errors import InvalidBody


class JsonRequest(Request):
    """Raises InvalidBody, whose message never quotes the body."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise InvalidBody(str(error)) from None
        except UnicodeDecodeError as error:
            raise InvalidBody(f"it is not UTF-8 ({error.reason})") from None
        except RecursionError:
            raise InvalidBody("it is nested too deeply") from None


class JsonRoute(GuardedRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(_as_json(request.scope), request.receive))

        return handle


def _as_json(scope: Scope) -> Scope:
    """People forget curl's content type. Pages of other origins, for whom it would matter, are stopped elsewhere."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
