"""Addresses lose everything that may be secret, wherever they stand in a text; the proxy on the way is named."""

from __future__ import annotations

import pytest

from model_registry.addresses import proxy_for, without_credentials
from model_registry.errors import RegistryError, SourceUnavailable

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@host/simple", "https://host/simple"),
        ("http://secret@host:8080/a/b.", "http://host:8080/a/b."),
        ("HTTPS://user:se@cret@host", "HTTPS://host"),
        ("http://user:se/cret@host:1/x", "http://host:1/x"),
        ("https://user:se#cret?@host/x", "https://host/x"),
        ("https://h/x?X-Amz-Signature=secret&token=secret", "https://h/x"),
        ("https://h/x?sig=secret/a@b", "https://h/x"),
        ("https://h/x#token=secret", "https://h/x"),
        ("socks5://user:secret@proxy:9 and http://b:secret@c", "socks5://proxy:9 and http://c"),
        ("git+https://secret@host/x", "git+https://host/x"),
        ("('https://u:secret@h/x?y=secret', timeout)", "('https://h/x', timeout)"),
        ("got Bearer secret, and hf_abcdefghij", "got Bearer ***, and ***"),
        ("There is no key 'slm_secret0123456789_-ABCDEFGHIJ' here.", "There is no key '***' here."),
        ("send `Authorization: Bearer KEY` or `x-api-key: KEY`", "send `Authorization: Bearer KEY` or `x-api-key: KEY`"),
        ("sent `Authorization: Bearer secret`.", "sent `Authorization: Bearer ***`."),
        ("send `Bearer secret` or", "send `Bearer ***` or"),
        ("http://h:80/a@b and hf://org/x@main/y#sha256=0", "http://h:80/a@b and hf://org/x@main/y#sha256=0"),
        ("'hf://user:secret@host/x' is none", "'hf://host/x' is none"),
        ("https://host/a/b is away.", "https://host/a/b is away."),
    ],
)
def test_what_is_shown_of_an_address(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    assert "secret" not in shown


def test_no_registry_error_shows_them() -> None:
    error = SourceUnavailable("https://user:secret@host/x?token=secret is away.")
    assert error.message == str(error) == "https://host/x is away."


def test_a_registry_error_that_quotes_something_long_is_cut() -> None:
    message = RegistryError(f"There is no model {'x' * 100_000} here.").message
    assert (message.startswith("There is no model x"), message.endswith("x here."), len(message) < 9_000) == (True, True, True)


def test_the_proxy_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert proxy_for("https://host/x") == ""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    assert proxy_for("https://host/x") == " through the proxy http://proxy:3128 (set by HTTPS_PROXY)"
    assert proxy_for("http://host/x") == ""
    monkeypatch.setenv("ALL_PROXY", "user:secret@other:1")
    assert proxy_for("http://host/x") == " through the proxy http://other:1 (set by ALL_PROXY)"
    monkeypatch.setenv("NO_PROXY", "host")
    assert proxy_for("https://host/x") == ""


@pytest.mark.parametrize("unit", ["a-", "a+a.a-", "socks-", "git+", "a://", "a@"])
def test_a_long_text_is_read_once(unit: str) -> None:
    """Messages quote what a request names. A search from each of its words to its end would not end within a day."""
    text = unit * 300_000
    assert without_credentials(f"{text} https://user:word@host/path").endswith(" https://host/path")
