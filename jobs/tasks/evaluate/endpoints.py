"""Servers of the configuration: how a job names one, and the one place where a connection to one is opened.

A name that resolves to an address of this machine or its network is used only where the configuration allows it, and the address
that was checked is the one that is connected to, whatever the name means a moment later. Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.fields import EndpointName
from jobs.permissions import EndpointAccess
from jobs.task import InvalidJob, JobFailure, Problem, TaskContext

_CONFIGURED = ("url", "key_env", "allow_remote")
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Endpoint(BaseModel):
    """An OpenAI-compatible server, by its name in the configuration, which has its address and its key."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    endpoint: EndpointName = Field(min_length=1, description="Its name among [endpoints.NAME] in slmops.toml.")
    model: str = ""
    concurrency: int = Field(8, ge=1, le=256)
    timeout_s: float = Field(600.0, gt=0)
    requests_per_minute: float | None = Field(None, gt=0, description="Maximum number of requests per minute.")
    price_per_million_tokens: float | None = Field(
        None, ge=0, description="Price for the cost estimate of a plan, in any currency."
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and (wrong := [name for name in _CONFIGURED if name in given]):
            raise ValueError(
                f"{' and '.join(wrong)} cannot be set by a job: add [endpoints.NAME] with url and key_env to slmops.toml, "
                'restart the daemon, and name it here as {"endpoint": "NAME"}'
            )
        return given


def access_to(endpoint: Endpoint, context: TaskContext, param: str) -> EndpointAccess:
    """Raises InvalidJob for one that was not granted."""
    access = context.grants.endpoints.get(endpoint.endpoint)
    if access is None:
        message = f"The configuration has no endpoint {endpoint.endpoint!r}: add it to slmops.toml, and restart the daemon."
        raise InvalidJob([Problem(message, param=f"{param}.endpoint", code="not_allowed")])
    return access


def check_endpoint(endpoint: Endpoint, context: TaskContext, param: str) -> str:
    """Returns the endpoint's name, which is never a label of a version.

    Raises InvalidJob, also when its host resolves to a forbidden address.
    """
    access = access_to(endpoint, context, param)
    with contextlib.suppress(OSError):  # it may resolve when it is called
        _addresses(endpoint, access, param)
    place = urlsplit(access.url).netloc
    return f"{place}/{endpoint.model}" if endpoint.model else place


class EndpointClient:
    """Posts to one server, whose name it resolves once. Raises JobFailure when that fails, InvalidJob. close() when done."""

    def __init__(self, endpoint: Endpoint, access: EndpointAccess) -> None:
        parts = urlsplit(access.url)
        headers = {"Authorization": f"Bearer {access.key}"} if access.key else {}
        proxy = _proxy_for(parts)
        self._url, self._extensions = access.url, {}
        if proxy is None:
            headers["Host"] = parts.netloc
            self._url, self._extensions = _pinned(parts, self._address(endpoint, access)), {"sni_hostname": parts.hostname}
        self._http = httpx.Client(headers=headers, timeout=endpoint.timeout_s, trust_env=False, proxy=proxy, follow_redirects=False)

    def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """Raises httpx.HTTPError."""
        return self._http.post(f"{self._url}/{path}", json=dict(body), extensions=self._extensions)

    def close(self) -> None:
        self._http.close()

    @staticmethod
    def _address(endpoint: Endpoint, access: EndpointAccess) -> IpAddress:
        try:
            return _addresses(endpoint, access, "target")[0]
        except OSError as error:
            message = f"The host of the endpoint {endpoint.endpoint!r} cannot be found ({error.strerror})."
            raise JobFailure(message, code="endpoint_failed", retryable=True) from error


def _addresses(endpoint: Endpoint, access: EndpointAccess, param: str) -> list[IpAddress]:
    """What the host means, at least one address. Raises OSError, InvalidJob."""
    host = urlsplit(access.url).hostname or ""
    found = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in socket.getaddrinfo(host, None)]
    if not (access.is_private or _is_written_out(host)) and (private := [each for each in found if not _is_public(each)]):
        message = (
            f"The endpoint {endpoint.endpoint!r} means {private[0]}, an address of this machine or its network. "
            "Set `private = true` in its table in slmops.toml if it may."
        )
        raise InvalidJob([Problem(message, param=f"{param}.endpoint", code="not_allowed")])
    return found


def _is_written_out(host: str) -> bool:
    """Whether the configuration names the address itself."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
    return True


def _is_public(address: IpAddress) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    plain = mapped or address
    return plain.is_global and not plain.is_multicast


def _pinned(parts: SplitResult, address: IpAddress) -> str:
    host = f"[{address}]" if address.version == 6 else str(address)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _proxy_for(parts: SplitResult) -> str | None:
    """The proxy of the environment for this host, if any; it resolves names itself. None for what is on this machine."""
    host = parts.hostname or ""
    proxies = getproxies()
    if _is_written_out(host) or proxy_bypass(host):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")
