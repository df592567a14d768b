"""The load generator against a scripted server on a real socket, and its arithmetic on known values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from jobs.tasks.benchmark.event_stream import Answer, EventStream, StreamFailed
from jobs.tasks.benchmark.load import Load, Target, prompts, quantile, report, run_load

pytestmark = pytest.mark.api

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
USAGE = {"prompt_tokens": 20, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def delta(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}}]})


DONE = event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"


class Script:
    """A server that answers every request with the same pieces, one write each, and keeps the bodies it was sent."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.bodies: list[dict[str, object]] = []
        self.heads: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.heads.append(head.decode())
        self.bodies.append(json.loads(await reader.readexactly(length)))
        for piece in self.pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    @asynccontextmanager
    async def url(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def complete(script: Script) -> Answer:
    async def send() -> Answer:
        async with script.url() as url:
            return await EventStream(url, "secret").complete({"messages": []})

    return asyncio.run(send())


def test_answer_counts_come_from_usage_and_instants_from_deltas() -> None:
    script = Script(OK + event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}), delta("a"), delta("b"), DONE)
    answer = complete(script)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (20, 3, 8)
    assert answer.ttft_s > 0
    assert len(answer.gaps_s) == 1
    assert "Authorization: Bearer secret" in script.heads[0]


def test_delta_split_between_reads_is_counted_once() -> None:
    text = delta("alpha") + delta("beta")
    cut = text.index(b"beta") - 5
    assert len(complete(Script(OK + text[:cut], text[cut:], DONE)).gaps_s) == 1


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ((b"HTTP/1.1 429 Too Many Requests\r\n\r\n", b'{"error":{"message":"queue full"}}'), "status 429.*queue full"),
        ((OK, delta("a"), event({"error": {"message": "worker died"}})), "ended early.*worker died"),
        ((OK, delta("a")), "ended early"),
        ((OK, DONE), "no text"),
        ((), "closed the connection"),
    ],
)
def test_incomplete_answer_is_a_failure_that_says_what_came(pieces: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(StreamFailed, match=message):
        complete(Script(*pieces))


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://"])
def test_url_that_is_none_is_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT/v1"):
        EventStream(url, None)


def run(script: Script, load: Load, target: Callable[[str], Target] = Target) -> object:
    async def go() -> object:
        async with script.url() as url:
            return await run_load(target(url), load)

    return asyncio.run(go())


def test_load_sends_every_prompt_once_after_one_warm_up() -> None:
    script = Script(OK, delta("a"), delta("b"), DONE)
    load = Load(num_clients=3, num_requests=7, max_tokens=5)
    measured = run(script, load, lambda url: Target(url, "m", extra={"ignore_eos": True}))
    assert (measured.num_ok, measured.num_errors, measured.completion_tokens) == (7, 0, 21)
    sent = [body["messages"][0]["content"] for body in script.bodies]
    assert sorted(sent[1:]) == sorted(prompts(load))
    assert {(body["model"], body["max_tokens"], body["ignore_eos"]) for body in script.bodies} == {("m", 5, True)}


def test_model_is_left_out_when_not_given() -> None:
    script = Script(OK, delta("a"), DONE)
    run(script, Load(num_requests=1))
    assert "model" not in script.bodies[0]


def test_failures_are_counted_and_the_first_is_kept() -> None:
    measured = run(Script(b"HTTP/1.1 503 Service Unavailable\r\n\r\nloading\n"), Load(num_requests=3))
    assert (measured.num_ok, measured.num_errors, measured.tokens_per_s) == (0, 3, 0.0)
    assert "503" in measured.first_error
    assert measured.ttft_p50_s is None


def test_unreachable_server_is_all_failures() -> None:
    measured = asyncio.run(run_load(Target("http://127.0.0.1:1/v1"), Load(num_requests=2)))
    assert (measured.num_ok, measured.num_errors) == (0, 2)
    assert "cannot connect" in measured.first_error


def test_prompts_are_reproducible_and_share_their_prefix() -> None:
    load = Load(num_requests=5, prompt_words=4, shared_prefix_words=50)
    texts = prompts(load)
    assert texts == prompts(load)
    assert len({" ".join(text.split()[:50]) for text in texts}) == 1
    assert len(set(texts)) == 5
    assert texts != prompts(Load(num_requests=5, prompt_words=4, shared_prefix_words=50, seed=8))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.99, 5.0), (1.0, 5.0)])
def test_quantile(share: float, expected: float) -> None:
    assert quantile([5.0, 1.0, 3.0, 2.0, 4.0], share) == expected


def test_report_of_known_answers() -> None:
    answers = [Answer(0.1, (0.01, 0.02), 3, 10, 0), Answer(0.3, (0.03,), 2, 20, 10)]
    summed = report(Load(num_clients=2, num_requests=3), answers, ["lost"], wall_s=0.5)
    assert (summed.completion_tokens, summed.tokens_per_s) == (5, 10.0)
    assert (summed.mean_prompt_tokens, summed.mean_cached_tokens) == (15.0, 5.0)
    assert (summed.ttft_p50_s, summed.gap_p50_s, summed.first_error) == (0.3, 0.02, "lost")
