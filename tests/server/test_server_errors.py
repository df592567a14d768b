"""The table of failures: statuses, codes, Retry-After; and what a reply must never say."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from jobs import job as jobs
from model_registry import errors as registry
from runtime.protocol import errors as runtime
from server.app import create_app
from server.dialects.openai.errors import OpenAIErrors
from server.http.body_errors import BodyTooComplex, BodyTooLarge, InvalidBody, UnsupportedCoding
from server.http.errors import DrainingError, ModelNotLoadedError, NotImplementedHere, reply_to
from server.settings.daemon import Settings
from tests.doubles.live_server import call_app, error_of


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (runtime.InvalidRequest("m"), 400, "invalid_value", None),
        (runtime.OverCapacity("m"), 429, "over_capacity", "1"),
        (runtime.OverCapacity("m", retry_after_s=2.1), 429, "over_capacity", "3"),
        (runtime.NotReady("m"), 503, "not_ready", "2"),
        (runtime.NotReady("m", code="draining", retry_after_s=5), 503, "draining", "5"),
        (runtime.StepFailed("m"), 500, "step_failed", None),
        (runtime.EngineDead("m"), 503, "engine_dead", "1"),
        (registry.ModelNotFound("m"), 404, "model_not_found", None),
        (registry.InvalidName("m"), 404, "model_not_found", None),
        (registry.InvalidReference("m"), 400, "invalid_reference", None),
        (registry.ModelInUse("m"), 409, "model_in_use", None),
        (registry.UnsupportedModel("m"), 422, "unsupported_model", None),
        (registry.SourceUnavailable("m"), 502, "source_unavailable", None),
        (registry.ChecksumMismatch("m"), 502, "checksum_mismatch", None),
        (registry.CorruptModel("m"), 500, "corrupt_model", None),
        (registry.OutOfDisk("m", needed_bytes=1), 507, "out_of_disk", None),
        (registry.NotWritable("m"), 507, "not_writable", None),
        (registry.RegistryBusy("m"), 503, "registry_busy", "2"),
        (jobs.TooManyPlans("m"), 429, "too_many_plans", "5"),
        (jobs.QueueClosing(), 503, "draining", "5"),
        (registry.DatabaseTooNew("m"), 500, "registry_error", None),
        (DrainingError(), 503, "draining", "5"),
        (ModelNotLoadedError("a", ["b:1"]), 404, "model_not_loaded", None),
        (BodyTooLarge(5), 413, "body_too_large", None),
        (InvalidBody("x"), 400, "invalid_json", None),
        (BodyTooComplex("x"), 400, "body_too_complex", None),
        (UnsupportedCoding("br"), 415, "unsupported_content_encoding", None),
        (NotImplementedHere("m"), 501, "not_implemented", None),
        (HTTPException(403), 403, "forbidden", None),
    ],
)
def test_each_failure_has_its_status_code_and_retry(error: Exception, status: int, code: str, retry_after: str | None) -> None:
    reply = reply_to(error)
    assert (reply.status, reply.code, reply.headers.get("Retry-After")) == (status, code, retry_after)
    assert json.loads(OpenAIErrors().body(reply))["error"]["message"]


def test_every_failure_of_the_lower_layers_is_in_the_table() -> None:
    for module in (runtime, registry):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Exception) and kind.__module__ == module.__name__ and kind is not runtime.RuntimeFailure:
                made = kind("m", needed_bytes=1) if kind is registry.OutOfDisk else kind("m")
                assert reply_to(made).code != "internal_error", kind


def test_what_the_exception_says_of_field_and_code_wins() -> None:
    reply = reply_to(runtime.InvalidRequest("too long", field=runtime.Field.CONVERSATION, code="context_length_exceeded"))
    assert (reply.message, reply.field, reply.param) == ("too long", "conversation", None)
    assert reply.code == "context_length_exceeded"


def test_an_unexpected_exception_reveals_nothing_of_itself() -> None:
    reply = reply_to(ValueError("the user's secret"))
    assert reply.status == 500
    assert b"secret" not in OpenAIErrors().body(reply)


def test_a_validation_error_names_its_field_by_dots() -> None:
    problem = {"loc": ("body", "messages", 0, "role"), "type": "missing", "msg": "Field required"}
    reply = reply_to(RequestValidationError([problem]))
    assert (reply.status, reply.param, reply.code) == (400, "messages.0.role", "missing_required_parameter")


def test_an_unknown_path_is_named(make_settings: Callable[..., Settings]) -> None:
    error = error_of(call_app(create_app(make_settings()), "GET", "/v2/chat"), 404)
    assert "GET /v2/chat" in error["message"]
    assert error["code"] == "unknown_url"


def test_a_wrong_method_is_answered_with_the_right_one(make_settings: Callable[..., Settings]) -> None:
    response = call_app(create_app(make_settings()), "DELETE", "/health")
    assert "Use GET" in error_of(response, 405)["message"]
    assert response.headers["allow"] == "GET"


def test_an_exception_nobody_foresaw_is_answered_and_logged_without_its_text(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(make_settings())

    @app.get("/boom")
    async def boom() -> None:
        raise ValueError("the user's secret")

    response = call_app(app, "GET", "/boom")
    error = error_of(response, 500)
    assert error["code"] == "internal_error"
    assert "secret" not in response.text
    assert any(record.message == "request failed" for record in caplog.records)


def test_openapi_describes_errors_and_both_kinds_of_answer(make_settings: Callable[..., Settings]) -> None:
    document = call_app(create_app(make_settings()), "GET", "/openapi.json").json()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert set(chat["responses"]) >= {"200", "400", "401", "403", "404", "413", "429", "500", "503"}
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert chat["responses"]["429"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorEnvelope")
    assert document["paths"]["/v1/completions"]["post"]["requestBody"]
    assert "422" not in chat["responses"]
