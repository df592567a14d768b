"""Servers that jobs may ask: the tables `[endpoints.NAME]` of slmops.toml, or SLMOPS_ENDPOINTS as a JSON object."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from jobs.permissions import EndpointSource

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class EndpointSettings(BaseModel):
    """A server that speaks OpenAI's API. Its key stands in a variable or a file, never here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(description="Its address, up to and with /v1.")
    key_env: str | None = Field(None, min_length=1, description="The daemon's variable that holds its key.")
    key_file: Path | None = Field(None, description="The file that holds its key.")
    private: bool = Field(False, description="Whether its name may mean an address of this machine or its network.")

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"is no address ({error})") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError("must be an address such as https://host/v1")
        if "@" in parts.netloc:
            raise ValueError("must hold no user and password: name the key's variable in key_env, or its file in key_file")
        if parts.query or parts.fragment:
            raise ValueError("must end with its path, without ? and #")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key_env is not None and self.key_file is not None:
            raise ValueError("takes key_env or key_file, not both")
        return self

    def source(self) -> EndpointSource:
        return EndpointSource(self.url, self.key_env, self.key_file, self.private)


def _tables(value: object) -> object:
    """A JSON object (from a variable) as the tables; other values stay as they are."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f'must be a JSON object such as {{"NAME": {{"url": "https://host/v1"}}}} ({error})') from None
    if isinstance(value, dict) and (wrong := [name for name in value if not _NAME.fullmatch(str(name))]):
        raise ValueError(f"{wrong[0]!r} is no endpoint's name: use letters, digits, dots, dashes and underscores")
    return value


EndpointTables = Annotated[dict[str, EndpointSettings], NoDecode, BeforeValidator(_tables)]
