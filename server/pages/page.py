"""An HTML page of this package, with the Content-Security-Policy that lets its own inline styles and scripts run and no others."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from starlette.responses import HTMLResponse

from server.version import slmops_version

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_VERSION = "{{version}}"
_CLOSED = ("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")


@dataclass(frozen=True, slots=True)
class Page:
    """html: as it is sent. policy: its Content-Security-Policy."""

    html: str
    policy: str

    @classmethod
    def read(cls, name: str, sources: Mapping[str, str] = MappingProxyType({})) -> Page:
        """name: of a file in this package. sources: what the page may use besides its inline parts, by directive."""
        text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8").replace(_VERSION, slmops_version())
        return cls(text, content_security_policy(text, sources))

    def response(self) -> HTMLResponse:
        headers = {
            "Content-Security-Policy": self.policy,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        return HTMLResponse(self.html, headers=headers)


def content_security_policy(html: str, sources: Mapping[str, str]) -> str:
    """Allows the inline scripts and styles of the page, by their hashes, its own server and `sources`; nothing else. Pure."""
    allowed = {"script-src": "", "style-src": "", "connect-src": "'self'", "img-src": "'self' data:"}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed[f"{kind}-src"] += f" 'sha256-{digest}'"
    for directive, more in sources.items():
        allowed[directive] = f"{allowed.get(directive, '')} {more}"
    none = "'none'"
    return "; ".join([*_CLOSED, *(f"{name} {each.strip() or none}" for name, each in allowed.items())])
