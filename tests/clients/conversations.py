"""The requests that tests send to the default model, and the reading of its streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

MODEL = "smollm2-135m"
QUESTION = "What is 2+2?"  # to which the default model has a short answer that ends by itself
T = TypeVar("T")


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def text_of(chunks: Iterable[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def at_once(url: str, works: Sequence[Callable[[openai.AsyncOpenAI], Awaitable[T]]]) -> list[T]:
    """Runs all of them together on one asynchronous client; the results in the same order."""

    async def run() -> list[T]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
            return list(await asyncio.gather(*(work(client) for work in works)))

    return asyncio.run(run())
