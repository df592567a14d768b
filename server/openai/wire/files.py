"""OpenAI's file object (https://platform.openai.com/docs/api-reference/files/object)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

Purpose = Literal["fine-tune", "evals", "user_data"]


class FileObject(BaseModel):
    """sha256: of its content, which OpenAI's has not: whoever uploads can see that it is there already."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    sha256: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
