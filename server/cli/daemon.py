"""The CLI's client of a running daemon. Knows its addresses and JSON; knows nothing of terminals."""

from __future__ import annotations

import json
import ssl
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import quote

import httpx

from server.cli.failures import CommandFailed
from server.cli.refusal import describe_refusal

if TYPE_CHECKING:
    from server.settings.daemon import Settings

_ANSWER_TIMEOUT = httpx.Timeout(None, connect=5.0)  # a stream may pause for as long as its model loads
_PROBE_TIMEOUT = httpx.Timeout(10.0, connect=1.0)  # who listens on this machine answers, however busy the machine is
_NAMED_PROBE_TIMEOUT = httpx.Timeout(10.0)
_TOO_LARGE = 413
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a daemon bound everywhere is reached


class Refused(CommandFailed):
    """The daemon answered with an error. status: of its answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_about_the_key(self) -> bool:
        return self.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """Text that comes next. is_reasoning: it belongs to the model's thought, not to its answer."""

    text: str
    is_reasoning: bool = False


class Daemon:
    """One daemon at `url` (without `/v1`; a path before it is kept). All but `is_running` raise CommandFailed when it refuses or
    is gone. is_named: whether the user chose this address, so that no other daemon or home will do.

    Only daemons elsewhere are reached through the proxies that the environment names.
    """

    def __init__(
        self, url: str, api_key: str | None = None, *, is_named: bool = False, timeout: httpx.Timeout = _ANSWER_TIMEOUT
    ) -> None:
        self.url = url
        self.is_named = is_named
        headers = {b"Authorization": f"Bearer {api_key}".encode()} if api_key else {}  # bytes: of any characters
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=timeout,
            trust_env=is_named and not _is_here(url),
            verify=ssl.create_default_context() if url.startswith("https:") else True,
        )

    @classmethod
    def configured(cls, settings: Settings, timeout_s: float | None = None) -> Self:
        """The daemon that the settings describe, whether it runs or not. timeout_s: of each answer; None: any time."""
        timeout = _ANSWER_TIMEOUT if timeout_s is None else httpx.Timeout(timeout_s)
        if settings.url is not None:
            return cls(settings.url, api_key_of(settings), is_named=True, timeout=timeout)
        host = _EVERY_ADDRESS.get(settings.host, settings.host)
        address = f"[{host}]" if ":" in host else host
        return cls(f"http://{address}:{settings.port}", api_key_of(settings), timeout=timeout)

    @property
    def is_here(self) -> bool:
        """Whether it is reached on this machine's loopback."""
        return _is_here(self.url)

    def is_running(self) -> bool:
        """Whether a server answers `/health`."""
        try:
            timeout = _NAMED_PROBE_TIMEOUT if self.is_named else _PROBE_TIMEOUT
            return self._http.get("/health", timeout=timeout).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def require(self) -> Self:
        if not self.is_running():
            raise CommandFailed(self._absence())
        return self

    def model_names(self) -> tuple[str, ...]:
        """What requests may name: models, then adapters as `model:adapter`."""
        return tuple(str(each["id"]) for each in self.call("GET", "/v1/models")["data"])

    def _absence(self, why: str = "") -> str:
        remedy = "check the address (--url or SLMOPS_URL)" if self.is_named else "start one with `slmops serve`"
        return f"no daemon answers at {self.url}{f' ({why})' if why else ''}; {remedy}"

    def loaded(self) -> list[dict[str, Any]]:
        """The rows of `slmops ps`, as `/admin/models` gives them."""
        rows: list[dict[str, Any]] = self.pool()["data"]
        return rows

    def pool(self) -> dict[str, Any]:
        """The answer of `/admin/models`: the loaded models, the memory budget, the waiting loads."""
        return self.call("GET", "/admin/models")

    def manage(self, model: str, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """verb: load, reload, unload or reset, as `/admin/models/{name}` has them."""
        return self.call("POST", f"/admin/models/{quote(model, safe='')}/{verb}", body)

    def stream_chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]) -> Generator[AnswerPiece]:
        """The answer as it comes. Closing the iterator closes the connection, which aborts the answer."""
        body = {"messages": list(messages), "stream": True, **options}
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise Refused(describe_refusal(response), response.status_code)
                yield from _deltas(response.iter_lines())
        except httpx.HTTPError as error:
            raise CommandFailed(f"the connection to {self.url} broke ({error}); is the daemon still running?") from error

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON that a route answers."""
        content: dict[str, Any] = self._answer(method, path, body).json()
        return content

    def create(self, path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """What a POST answers, and whether that was created by it, or there already."""
        response = self._answer("POST", path, body)
        return response.json(), response.status_code == httpx.codes.CREATED

    def upload(self, file: BinaryIO, filename: str, purpose: str) -> dict[str, Any]:
        """The file's object, as `/v1/files` answers it."""
        try:
            response = self._http.post("/v1/files", files={"file": (filename, file)}, data={"purpose": purpose})
        except httpx.HTTPError as error:
            raise CommandFailed(f"{filename} could not be uploaded to {self.url} ({error})") from error
        if response.status_code >= httpx.codes.BAD_REQUEST:
            advice = "; or list its folder in jobs.data_roots of slmops.toml" if response.status_code == _TOO_LARGE else ""
            raise CommandFailed(f"{filename} could not be uploaded: {describe_refusal(response).rstrip('.')}{advice}")
        content: dict[str, Any] = response.json()
        return content

    def text(self, path: str) -> str:
        """The text that a route answers."""
        return self._answer("GET", path, None).text

    def job_events(self, job: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """A job's events as they happen, until it has ended."""
        return self.events(f"/admin/jobs/{quote(job, safe='')}/events", "the job continues, watch it again", after)

    def events(self, path: str, after_a_break: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """The events of a stream until it ends. after_a_break: what a broken connection means, and what to do."""
        query = {"stream": True, "after": after}
        try:
            with self._http.stream("GET", path, params=query) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise CommandFailed(describe_refusal(response))
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            raise CommandFailed(f"the connection to {self.url} broke ({error}); {after_a_break}") from error

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise CommandFailed(self._absence(str(error))) from error
        if response.status_code >= httpx.codes.MULTIPLE_CHOICES:
            raise Refused(describe_refusal(response), response.status_code)
        return response

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def api_key_of(settings: Settings) -> str | None:
    return settings.api_key.get_secret_value() if settings.api_key else None


def _is_here(url: str) -> bool:
    from server.http.security import is_loopback

    return is_loopback(httpx.URL(url).host)


def _deltas(lines: Iterator[str]) -> Iterator[AnswerPiece]:
    for line in lines:
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            raise CommandFailed(event["error"]["message"])
        for choice in event["choices"]:
            delta = choice["delta"]
            if reasoning := delta.get("reasoning_content"):
                yield AnswerPiece(reasoning, is_reasoning=True)
            if text := delta.get("content"):
                yield AnswerPiece(text)
