"""What an error answer of a daemon means to the person at the command line, who sets variables and sends no headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

_UNAUTHORIZED = 401
_SETTING = "SLMOPS_API_KEY (or api_key in slmops.toml)"
_KEYS = {
    "invalid_api_key": f"does not know the API key; set {_SETTING} to one of its keys",
    "expired_api_key": f"refused the API key, which has expired; set {_SETTING} to another",
    "revoked_api_key": f"refused the API key, which was revoked; set {_SETTING} to another",
}


def describe_refusal(response: httpx.Response) -> str:
    """The message of an error envelope, with the command line's remedy; of another server's answer, its status and beginning."""
    if response.has_redirect_location:
        return f"{response.url} redirects to {response.headers['Location']}, which is not followed; use that address (--url)"
    try:
        error = response.json()["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{response.url} answered {response.status_code}: {response.text[:200]}; is it slmops?"
    if response.status_code == _UNAUTHORIZED:
        return f"the daemon at {_origin(response)} {_about_key(response.request, code)}"
    if code == "insufficient_scope":
        return f"{message} Set {_SETTING} to such a key; `slmops keys create --name NAME --scope SCOPE` makes one."
    return message


def _about_key(request: httpx.Request, code: str | None) -> str:
    if "authorization" not in request.headers:
        return f"needs an API key; set {_SETTING}"
    return _KEYS.get(code or "", _KEYS["invalid_api_key"])


def _origin(response: httpx.Response) -> str:
    return f"{response.url.scheme}://{response.url.netloc.decode()}"
