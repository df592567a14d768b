"""What the command line says of a daemon's refusals."""

from __future__ import annotations

import httpx
import pytest

from server.cli.refusal import describe_refusal

URL = "http://127.0.0.1:8000/admin/models?x=1"


def refused(status: int, code: str | None, message: str = "No.", key: str | None = "k") -> str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = httpx.Request("GET", URL, headers=headers)
    return describe_refusal(httpx.Response(status, json={"error": {"message": message, "code": code}}, request=request))


@pytest.mark.parametrize("code", ["invalid_api_key", "expired_api_key", "revoked_api_key", "new_code"])
@pytest.mark.parametrize("key", ["k", None])
def test_a_401_names_the_variable_and_no_header(code: str, key: str | None) -> None:
    message = refused(401, code, "Send it as `Authorization: Bearer KEY`.", key)
    assert "SLMOPS_API_KEY" in message
    assert "http://127.0.0.1:8000" in message
    assert "Authorization" not in message


def test_causes_of_a_401_differ() -> None:
    causes = {refused(401, code) for code in ("invalid_api_key", "expired_api_key", "revoked_api_key")}
    assert len({*causes, refused(401, "invalid_api_key", key=None)}) == 4


def test_a_missing_scope_keeps_its_message_and_says_which_variable_to_set() -> None:
    message = refused(403, "insufficient_scope", "This needs the scope `admin`.")
    assert message.startswith("This needs the scope `admin`.")
    assert "SLMOPS_API_KEY" in message


def test_other_refusals_speak_for_themselves() -> None:
    assert refused(404, "model_not_found", "Model not found.") == "Model not found."
    assert refused(403, "host_not_allowed", "Not that Host.") == "Not that Host."


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"error": "text"}', b'{"error": null}'])
def test_what_is_not_slmops_is_named(content: bytes) -> None:
    response = httpx.Response(502, content=content, request=httpx.Request("GET", URL))
    assert "is it slmops?" in describe_refusal(response)
