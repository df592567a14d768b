"""Addresses of servers as they may be shown: without users, passwords, tokens and signatures. Also names the proxy on the way."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

# Of any kind of address. A scheme of any length would be sought from each of a long text's words to its end.
_USER = re.compile(r"\b([a-z][a-z0-9+.-]{0,31}://)[^\s/'\"]*@", re.IGNORECASE)
_ADDRESS = re.compile(r"\b((?:https?|wss?|ftps?|socks\w*|git\+\w+)://)([^\s'\"<>`\\)\]}]+)", re.IGNORECASE)
_TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{6,}|slm_[A-Za-z0-9_-]{20,}"
    r"|(?<=Bearer )(?!KEY\b)[^\s'\"`,;]+|(?<=Basic )[A-Za-z0-9+/=]{6,})"  # KEY stands for a key, in our own messages
)
_QUOTED_TAIL = ".,;:!?"  # what follows an address in a sentence


def without_credentials(text: str) -> str:
    """`text`, where every address has lost its user, password, query and fragment, and tokens are `***`.

    For messages, logs, progress and manifests: a query may hold a token or a signature under any name.
    """
    bare = _ADDRESS.sub(lambda match: match[1] + _plain(match[2]), text)
    return _TOKENS.sub("***", _USER.sub(r"\1", bare))


def _plain(rest: str) -> str:
    """What follows the scheme, without secrets. A password may hold `/`, `?` or `#`, though it should not."""
    before, at, after = rest.rpartition("@")
    if at and _is_userinfo(before):
        rest = after
    bare = re.split(r"[?#]", rest, maxsplit=1)[0]
    tail = rest[len(rest.rstrip(_QUOTED_TAIL)) :] if bare != rest else ""
    return bare + tail


def _is_userinfo(before: str) -> bool:
    """Whether what stands before the last @ is a user, and not a host with a path that holds an @."""
    host, slash, _ = before.partition("/")
    if not slash:
        return True
    name, colon, port = host.partition(":")
    return "@" in host or (bool(colon) and bool(name) and not port.isdigit())


def proxy_for(url: str) -> str:
    """` through the proxy ADDRESS (set by VARIABLE)` when requests to `url` take one, else nothing; for an error's message."""
    parsed = urlsplit(url)
    if not parsed.hostname or proxy_bypass(parsed.hostname):
        return ""
    proxies = getproxies()
    for kind in (parsed.scheme, "all"):
        if proxy := proxies.get(kind):
            variable = f"{kind}_proxy"
            name = next((each for each in (variable.upper(), variable) if os.environ.get(each)), "the system's settings")
            shown = without_credentials(proxy if "://" in proxy else f"http://{proxy}")
            return f" through the proxy {shown} (set by {name})"
    return ""
