"""A claim on a loaded model, on which requests are submitted. Knows no pool."""

from __future__ import annotations

from collections.abc import Awaitable
from types import TracebackType
from typing import Protocol

from runtime.pool.generation import Answer, Generation, Inquiry
from runtime.protocol.messages import Detokenize, Detokenized, ModelInfo, Submit, Tokenize, Tokenized
from runtime.protocol.request import Prompt, SamplingParams


class Held(Protocol):
    """What a lease needs of the model that it is on."""

    def new_request_id(self) -> int:
        """An id that no other request or inquiry of this model has."""
        ...

    def submit(self, message: Submit) -> Generation: ...

    def inquire(self, message: Inquiry) -> Awaitable[Answer]: ...

    def release(self) -> None: ...


class Lease:
    """The model is not unloaded while any lease is open, unless an operator unloads it. Use as `with lease:` or call release()."""

    def __init__(self, model: Held, info: ModelInfo) -> None:
        self._model = model
        self._released = False
        self.info = info

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        principal: str = "",
        group: int | None = None,
        deadline_s: float | None = None,
        adapter: str | None = None,
        return_prompt_text: bool = False,
        return_prompt_token_ids: bool = False,
    ) -> Generation:
        """Raises EngineDead when the worker has died since the lease was taken."""
        return self._model.submit(
            Submit(
                request=self._model.new_request_id(),
                prompt=prompt,
                params=params,
                priority=priority,
                principal=principal,
                group=group,
                deadline_s=deadline_s,
                adapter=adapter,
                return_prompt_text=return_prompt_text,
                return_prompt_token_ids=return_prompt_token_ids,
            )
        )

    async def tokenize(self, prompt: Prompt) -> Tokenized:
        """The tokens that a request with this prompt would have; nothing is computed. Raises InvalidRequest, EngineDead."""
        answer = await self._model.inquire(Tokenize(request=self._model.new_request_id(), prompt=prompt))
        assert isinstance(answer, Tokenized)
        return answer

    async def detokenize(self, token_ids: list[int]) -> Detokenized:
        """The text of these tokens, special ones written out. Raises InvalidRequest, EngineDead."""
        answer = await self._model.inquire(Detokenize(request=self._model.new_request_id(), token_ids=token_ids))
        assert isinstance(answer, Detokenized)
        return answer

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._model.release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
