"""Bodies before their fields are looked at: what they hold is counted in their bytes, encodings and compressions are named."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import server.http.json_route
from model_registry.text_files import why_not_utf8
from server.dialects.openai.wire.chat import ChatRequest
from server.dialects.openai.wire.completions import CompletionRequest
from server.http.bodies import Gunzip, GunzippedReceive
from server.http.body_errors import BodyTooLarge, InvalidBody
from server.http.json_route import JsonLimits, JsonMeter, JsonRequest, TooComplex, measure
from tests.doubles.live_server import chat_body, error_of

CHAT = "/v1/chat/completions"
LIMITS = JsonLimits()
_TEXTS = st.text(st.sampled_from('a,:[]{}"\\é\n'))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXTS, inner),
    max_leaves=40,
)


def _num_values(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(_num_values(each) for each in inside)


def _num_members(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + len(value) + sum(_num_members(each) for each in value.values())
    return 1 + sum(_num_members(each) for each in value) if isinstance(value, list) else 0


def _depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max((_depth(each) for each in (value.values() if isinstance(value, dict) else value)), default=0)


@given(_JSON, st.integers(1, 9), st.booleans(), st.sampled_from([None, 1]))
def test_what_is_counted_is_what_a_decoder_makes(value: Any, slice_bytes: int, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    meter = JsonMeter(LIMITS)
    for start in range(0, len(text), slice_bytes):
        meter.feed(text[start : start + slice_bytes])
    empty = text.count(b"[]") + text.count(b"{}")  # within texts too: an upper bound of the empty ones, each counted as one value
    assert _num_values(value) <= meter.num_values <= _num_values(value) + empty
    assert meter.num_members == _num_members(value)
    assert _num_values(msgspec.json.decode(text)) <= meter.num_values


@given(_JSON)
def test_depth_is_counted_exactly(value: Any) -> None:
    text, depth = json.dumps(value).encode(), _depth(value)
    measure(text, JsonLimits(depth=depth))
    if depth:
        with pytest.raises(TooComplex, match="nested more than"):
            measure(text, JsonLimits(depth=depth - 1))


@given(st.binary(max_size=60))
def test_any_bytes_are_counted_without_a_failure(data: bytes) -> None:
    measure(data, LIMITS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"[" + b"1," * (1 << 20), "values"),
        (b"[" + b"[]," * (1 << 20), "arrays, objects and fields"),
        (b"{" + b'"a":1,' * (1 << 20), "arrays, objects and fields"),
        (b"[" * 1000, "nested"),
        (b'{"a":' * 1000, "nested"),
        (b"9" * 1000, "digits"),
        (b"[0." + b"3" * 1000, "digits"),
        (b"[" + b"0.12345678901234567890," * 210_000, "altogether"),
        (b'"\\\\",' * (1 << 20), "values"),
        (b'"\\"",' * (1 << 20), "values"),
    ],
)
def test_what_would_cost_others_much_is_over_a_limit(text: bytes, problem: str) -> None:
    with pytest.raises(TooComplex, match=problem):
        measure(text, LIMITS)


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": [50_256] * 300_000},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a, b: [c]"}]}] * 4096},
        {"messages": [{"role": "user", "content": "a, b: [c] {d}, \"e\" \\ " * 200_000}]},
        {"logit_bias": {str(token): -100 for token in range(1024)}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {str(n): {"type": "string"}}}}}
                   for n in range(128)]},
        [9.87654321e-300, 10**308],
    ],
    ids=["token ids", "messages", "prose", "biases", "tools", "numbers"],
)  # fmt: skip
def test_what_requests_hold_is_within_the_limits(value: Any) -> None:
    measure(json.dumps(value).encode(), LIMITS)


def _request(body: bytes) -> JsonRequest:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return JsonRequest({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


def test_a_body_over_a_limit_is_not_decoded(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: bytes) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(server.http.json_route.msgspec.json, "decode", decode)
    error = error_of(http.post(CHAT, content=b"[" + b"[]," * 1_000_000), 400)
    assert error["code"] == "body_too_complex"
    assert "send fewer" in error["message"]


def test_others_run_while_a_large_body_is_counted() -> None:
    """The event loop comes to others once per slice."""

    async def count_turns() -> int:
        reading = asyncio.ensure_future(_request(b'"' + b"x" * (8 << 20) + b'"').json())
        turns = 0
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(count_turns()) > 100


_SMALL = ("/admin/jobs", "/admin/job-plans", "/admin/pipelines", "/v1/fine_tuning/jobs", "/admin/models/a/load")


@pytest.mark.parametrize("path", _SMALL)
def test_routes_that_need_little_take_little(http: httpx.Client, path: str) -> None:
    assert error_of(http.post(path, content=b"[" + b"1," * 20_000), 400)["code"] == "body_too_complex"
    deep = b'{"params":' + b'{"a":' * 400 + b"1" + b"}" * 401
    assert error_of(http.post(path, content=deep), 400)["code"] == "body_too_complex"


def test_every_route_with_a_json_body_counts_it(live: Any) -> None:
    paths = live.app.openapi()["paths"]
    with_json = [
        (path, method)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]
    assert len(with_json) > 10
    with httpx.Client(base_url=live.url, timeout=30, trust_env=False) as client:
        for path, method in with_json:
            response = client.request(method, path.replace("{", "").replace("}", ""), content=b"[" * 1000)
            assert error_of(response, 400)["code"] == "body_too_complex", path


def _problems(request: type[ChatRequest | CompletionRequest], **fields: Any) -> list[Any]:
    with pytest.raises(ValidationError) as caught:
        request(**({"messages": [{"role": "user", "content": "hi"}]} | fields))
    return caught.value.errors()


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [1] * 4000},
        {"messages": [1] * 400_000},
        {"messages": [{"role": "user", "content": [1] * 4000}]},
        {"messages": [{"role": "user", "content": [1] * 400_000}]},
        {"messages": [{"role": "assistant", "tool_calls": [1] * 1000}]},
        {"messages": [{"role": "assistant", "tool_calls": [1] * 400_000}]},
        {"tools": [1] * 128},
        {"tools": [1] * 400_000},
        {"functions": [1] * 128},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [1] * 128}}},
        {"stop": [1] * 400_000},
        {"stop": ["a"] * 400_000},
        {"stop_token_ids": ["a"] * 1000},
        {"stop_token_ids": ["a"] * 400_000},
        {"logit_bias": {str(number): "a" for number in range(20_000)}},
        {"metadata": {str(number): 1 for number in range(20_000)}},
        {"guided_choice": [1] * 10_000},
        {"structured_outputs": {"choice": [1] * 400_000}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_validation_stops_at_the_first_faults(fields: dict[str, Any]) -> None:
    assert len(_problems(ChatRequest, **fields)) <= 3


@pytest.mark.parametrize("prompt", [["a"] * 5000, [[1]] * 5000])
def test_prompts_are_limited(prompt: Any) -> None:
    with pytest.raises(ValidationError, match="5000 prompts; at most 4096"):
        CompletionRequest(prompt=prompt)


def _called(arguments: str, num_calls: int = 1) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [{"role": "assistant", "tool_calls": [call] * num_calls}]}


def test_json_texts_within_fields_are_counted_too() -> None:
    large = '{"a":[' + "[]," * 20_000 + "1]}"
    ChatRequest(**_called(large))
    assert "JSON texts that together hold more" in _problems(ChatRequest, **_called(large, 10))[0]["msg"]
    larger = large.replace("1]", "[]," * 100_000 + "1]")
    assert "has a JSON text that has more than" in _problems(ChatRequest, **_called(larger))[0]["msg"]
    assert "has more than" in _problems(ChatRequest, guided_json='{"a":[' + "[]," * 200_000)[0]["msg"]


def test_copies_of_a_large_prompt_are_limited(http: httpx.Client) -> None:
    error = error_of(http.post(CHAT, json=chat_body("x" * 4_000_000, n=128)), 400)
    assert (error["param"], error["code"]) == ("n", "invalid_value")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"messages": "\xff\xfe"}', "it is not UTF-8 (byte 14)"),
        (b'{"messages": "\xed\xa0\x80"}', "it is not UTF-8 (byte 14)"),
        (json.dumps(chat_body("hi")).encode("utf-16"), "it is UTF-16"),
        (json.dumps(chat_body("hi")).encode("utf-16-le"), "it is UTF-16"),
        (json.dumps(chat_body("hi")).encode("utf-16-be"), "it is UTF-16"),
        (json.dumps(chat_body("hi")).encode("utf-32"), "it is UTF-32"),
        (json.dumps(chat_body("hi")).encode("utf-32-be"), "it is UTF-32"),
        (json.dumps(chat_body("hé")).encode("latin-1").replace(b"\\u00e9", b"\xe9"), "it is not UTF-8"),
        (gzip.compress(json.dumps(chat_body("hi")).encode(), mtime=0), "send the header 'Content-Encoding: gzip'"),
        (b"\x28\xb5\x2f\xfd\x00", "Zstandard"),
        (b"PK\x03\x04\x14", "ZIP archive"),
    ],
)
def test_other_encodings_are_named_with_the_remedy(http: httpx.Client, body: bytes, named: str) -> None:
    error = error_of(http.post(CHAT, content=body), 400)
    assert (error["code"], named in error["message"]) == ("invalid_json", True), error


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"\xef\xbb\xbf{}", "é".encode()])
def test_utf8_is_no_other_encoding(data: bytes) -> None:
    assert why_not_utf8(data) is None


def test_a_byte_order_mark_is_read_over(http: httpx.Client) -> None:
    assert http.post(CHAT, content=b"\xef\xbb\xbf" + json.dumps(chat_body("hi")).encode()).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"messages": [{"role": "user", "content": "a \\ud83d"}]}', "messages.0.content"),
        ('{"messages": [{"role": "user", "content": "\\uD83Dx"}], "user": "\\ude00"}', "messages.0.content"),
        ('{"messages": [], "metadata": {"\\ude00": "x"}}', "metadata"),
        ('{"messages": [], "stop": ["a", "\\udc00\\ud800"]}', "stop.1"),
        ('{"messages": [], "stop": ["\\ud83d\\ude00", "\\ud83d"]}', "stop.1"),
    ],
)
def test_half_a_surrogate_pair_names_its_field(http: httpx.Client, body: str, param: str) -> None:
    error = error_of(http.post(CHAT, content=body.encode()), 400)
    assert (error["param"], error["code"]) == (param, "invalid_json")
    assert f"'{param}' holds half of a surrogate pair" in error["message"]


def test_half_a_surrogate_pair_that_is_the_whole_body(http: httpx.Client) -> None:
    assert "'the body' holds half" in error_of(http.post(CHAT, content=b'"\\ud800"'), 400)["message"]


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "identity, gzip"])
def test_gzip_is_read(http: httpx.Client, coding: str) -> None:
    body = gzip.compress(json.dumps(chat_body("hi")).encode())
    assert http.post(CHAT, content=body, headers={"Content-Encoding": coding}).status_code == 200


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "compress"])
def test_other_compressions_say_what_is_read(http: httpx.Client, coding: str) -> None:
    response = http.post(CHAT, content=b"{}", headers={"Content-Encoding": coding})
    error = error_of(response, 415)
    assert (error["code"], response.headers["accept-encoding"]) == ("unsupported_content_encoding", "gzip")
    assert coding in error["message"]


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:20] + b"xxxx" + data[24:], lambda data: b"{}"])
def test_damaged_gzip_is_reported(http: httpx.Client, damage: Any) -> None:
    body = damage(gzip.compress(json.dumps(chat_body("hi" * 1000)).encode()))
    error = error_of(http.post(CHAT, content=body, headers={"Content-Encoding": "gzip"}), 400)
    assert "gzip data is damaged or incomplete" in error["message"]


def test_a_gzip_bomb_meets_the_limit_on_bodies(http: httpx.Client) -> None:
    body = gzip.compress(b'{"messages": "' + b"x" * (64 << 20))
    assert len(body) < 1 << 20
    assert error_of(http.post(CHAT, content=body, headers={"Content-Encoding": "gzip"}), 413)["code"] == "body_too_large"


def test_decompression_holds_no_more_than_a_piece() -> None:
    gunzip = Gunzip(max_bytes=1 << 20)
    gunzip.feed(gzip.compress(b"x" * (1 << 26)))
    assert [len(gunzip.piece()) for _ in range(4)] == [1 << 18] * 4
    with pytest.raises(BodyTooLarge):
        gunzip.piece()


def test_what_follows_gzip_data_is_refused() -> None:
    gunzip = Gunzip(max_bytes=1 << 20)
    gunzip.feed(gzip.compress(b"x", mtime=0) * 2)
    assert gunzip.piece() == b"x"
    with pytest.raises(InvalidBody, match="follows the end"):
        gunzip.piece()


def test_an_upload_may_be_compressed(http: httpx.Client) -> None:
    plain = httpx.Request("POST", "http://x/", files={"file": ("a.jsonl", b"{}")}, data={"purpose": "user_data"})
    headers = {"Content-Type": plain.headers["content-type"], "Content-Encoding": "gzip"}
    stored = http.post("/v1/files", content=gzip.compress(plain.read()), headers=headers).json()
    assert stored["bytes"] == 2


@given(st.binary(max_size=2000), st.integers(1, 300))
def test_gzip_in_any_slices_is_what_was_compressed(data: bytes, slice_bytes: int) -> None:
    packed = gzip.compress(data, mtime=0)
    slices = [packed[start : start + slice_bytes] for start in range(0, len(packed), slice_bytes)]

    async def read() -> bytes:
        left = list(slices)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        gunzipped, found = GunzippedReceive(receive, 1 << 20), b""
        while True:
            message = await gunzipped()
            found += message["body"]
            if not message["more_body"]:
                return found

    assert asyncio.run(read()) == data


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ({"files": [("file", ("a", b"x"))] * 2, "data": {"purpose": "evals"}}, "Too many files"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "evals"} | {str(n): "x" for n in range(20)}}, "Too many fields"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "e" * 5000}}, "maximum size of 4KB"),
        ({"data": {"purpose": "x" * 5000}}, "multipart/form-data"),
        ({"content": b"{}", "headers": {"Content-Type": "application/json"}}, "multipart/form-data"),
    ],
    ids=["files", "fields", "field", "urlencoded", "json"],
)
def test_a_form_holds_one_file_and_short_fields(http: httpx.Client, form: dict[str, Any], named: str) -> None:
    error = error_of(http.post("/v1/files", **form), 400)
    assert named in error["message"]
