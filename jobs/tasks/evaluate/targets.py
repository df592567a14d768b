"""Who answers questions: a version of the registry, run here by our own batching engine; or any OpenAI-compatible server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

import httpx

from jobs.task import JobFailure, TaskContext
from jobs.tasks.checkpoints import served_variant
from jobs.tasks.evaluate.endpoints import Endpoint, EndpointClient, access_to, check_endpoint
from jobs.tasks.evaluate.local_model import LocalModel
from jobs.tasks.evaluate.questions import Answered, Question
from jobs.tasks.finetune.rendering import arguments_of
from jobs.tasks.preconditions import check_runs_here

_BUSY = 429
_PATIENCE = 6  # attempts per question while the server is too busy


class Target(Protocol):
    def answers(
        self, questions: Sequence[tuple[int, Question]], max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[tuple[int, Answered]]:
        """Each with its number, in the order in which they end. temperature 0: greedy; else seed and number decide."""

    def close(self) -> None: ...


def check_target(target: str | Endpoint, context: TaskContext, param: str) -> str:
    """Returns the target's name. Raises InvalidJob, RegistryError."""
    if isinstance(target, str):
        version = context.registry.resolve(target)
        check_runs_here(version, param)
        return version.label
    return check_endpoint(target, context, param)


def open_target(target: str | Endpoint, context: TaskContext) -> Target:
    """Raises what `check_target` does, however the job was planned, and JobFailure."""
    if isinstance(target, Endpoint):
        return RemoteModel(target, context)
    version = context.registry.resolve(target)
    try:
        return LocalModel(served_variant(version).folder, context)
    except ValueError as error:
        message = f"{version.label} cannot be run by slmops' own engine ({error}). Serve it, and evaluate its endpoint."
        raise JobFailure(message, code="unsupported_model") from error


class RemoteModel:
    """Sends questions to a server, several at a time."""

    def __init__(self, endpoint: Endpoint, context: TaskContext) -> None:
        self._endpoint = endpoint
        self._context = context
        self._turn = threading.Lock()
        self._next_turn = 0.0
        self._client = EndpointClient(endpoint, access_to(endpoint, context, "target"))

    def answers(
        self, questions: Sequence[tuple[int, Question]], max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[tuple[int, Answered]]:
        with ThreadPoolExecutor(self._endpoint.concurrency) as threads:
            pending: dict[Future[Answered], int] = {
                threads.submit(self._query, each, max_tokens, temperature, seed + number): number for number, each in questions
            }
            try:
                while pending:
                    done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                    self._context.check()
                    for future in done:
                        yield pending.pop(future), future.result()
            finally:
                for future in pending:
                    future.cancel()

    def close(self) -> None:
        self._client.close()

    def _wait_for_turn(self) -> None:
        """Requests begin at least a minute's share apart; a job that is to end does not wait."""
        if self._endpoint.requests_per_minute is None:
            return
        with self._turn:
            begins = max(time.monotonic(), self._next_turn)
            self._next_turn = begins + 60.0 / self._endpoint.requests_per_minute
        self._wait_until(begins)

    def _wait_until(self, moment_s: float) -> None:
        while (left := moment_s - time.monotonic()) > 0 and self._context.reporter.stop is None:
            time.sleep(min(left, 0.2))

    def _query(self, question: Question, max_tokens: int, temperature: float, seed: int) -> Answered:
        body: dict[str, Any] = {"messages": list(question.messages), "max_tokens": max_tokens, "temperature": temperature}
        body |= {"seed": seed} if temperature else {}
        body |= {"model": self._endpoint.model} if self._endpoint.model else {}
        body |= {"tools": list(question.tools)} if question.tools else {}
        try:
            response = self._answer(body)
            response.raise_for_status()
            message = response.json()["choices"][0]["message"]
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise JobFailure(_refusal(status, self._endpoint), code="endpoint_refused", retryable=status >= _BUSY) from error
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            message = f"The endpoint did not answer as OpenAI's API does ({type(error).__name__}). Does it run at its url?"
            raise JobFailure(message, code="endpoint_failed", retryable=True) from error
        functions = [call["function"] for call in message.get("tool_calls") or ()]
        calls = tuple((function["name"], arguments_of(function["arguments"])) for function in functions)
        return Answered(message.get("content") or "", calls)

    def _answer(self, body: dict[str, Any]) -> httpx.Response:
        """The server's response. Retries while the server is busy; after the last attempt, returns the refusal."""
        for attempt in range(_PATIENCE):
            self._wait_for_turn()
            response = self._client.post("chat/completions", body)
            if response.status_code not in (_BUSY, httpx.codes.SERVICE_UNAVAILABLE):
                break
            self._wait_until(time.monotonic() + busy_s(response.headers.get("Retry-After"), attempt))
            self._context.check()
        return response


def busy_s(retry_after: str | None, attempt: int) -> float:
    """The delay in seconds before the next attempt at a busy server: its Retry-After, else 1, 2, 4...; at most 60."""
    delay_s = float(retry_after) if retry_after is not None and retry_after.isdecimal() else 2.0**attempt
    return min(delay_s, 60.0)


def _refusal(status: int, endpoint: Endpoint) -> str:
    match status:
        case 401 | 403:
            advice = f" Look at key_env or key_file of [endpoints.{endpoint.endpoint}] in slmops.toml."
        case 404:
            advice = " Look at its url in slmops.toml, which goes up to and with /v1, and at model."
        case 301 | 302 | 303 | 307 | 308:
            advice = " It sends requests elsewhere, which is not followed: write the address that it means into slmops.toml."
        case 429 | 503:
            advice = f" It was tried {_PATIENCE} times: lower concurrency or requests_per_minute."
        case _:
            advice = ""
    return f"The endpoint answered {status}.{advice}"
