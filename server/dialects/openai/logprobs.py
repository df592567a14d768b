"""Log probabilities as clients read them: chat's, completions', and vLLM's of a prompt. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from runtime.protocol.events import Alternative, Started, TokenLogprob
from server.dialects.openai.wire.answer_parts import (
    ChatLogprobs,
    ChatTokenLogprob,
    CompletionLogprobs,
    PromptLogprob,
    PromptLogprobs,
    TopLogprob,
)

_LEAST = -9999.0  # stands for minus infinity, which JSON cannot express; as OpenAI and vLLM do


def chat_logprobs(logprobs: Iterable[TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(
        content=[
            ChatTokenLogprob(
                token=_text(each.token),
                logprob=_finite(each.logprob),
                bytes=list(each.token),
                top_logprobs=[
                    TopLogprob(token=_text(top.token), logprob=_finite(top.logprob), bytes=list(top.token)) for top in each.top
                ],
            )
            for each in logprobs
        ]
    )


class LegacyLogprobs:
    """Completions' shape, for one choice whose text may come in pieces: it knows how much text there was before."""

    def __init__(self) -> None:
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_characters = 0

    def of_choice(self, started: Started, logprobs: Sequence[TokenLogprob]) -> CompletionLogprobs:
        """A whole choice: its prompt, where it is echoed, and its answer."""
        prompt, answer = self.of_prompt(started), self.of_answer(logprobs)
        return CompletionLogprobs(
            tokens=prompt.tokens + answer.tokens,
            token_logprobs=prompt.token_logprobs + answer.token_logprobs,
            top_logprobs=prompt.top_logprobs + answer.top_logprobs,
            text_offset=prompt.text_offset + answer.text_offset,
        )

    def of_prompt(self, started: Started) -> CompletionLogprobs:
        """The prompt's log probabilities; none unless the prompt is echoed. Its first token has no probability."""
        logprobs = (started.prompt_logprobs or []) if started.prompt_text is not None else []
        rest = b"".join(each.token for each in logprobs if each is not None)
        whole = (started.prompt_text or "").encode()
        first = whole.removesuffix(rest) if whole.endswith(rest) else b""
        return self._of([first if each is None else each.token for each in logprobs], logprobs)

    def of_answer(self, logprobs: Sequence[TokenLogprob]) -> CompletionLogprobs:
        """The next tokens of the answer."""
        return self._of([each.token for each in logprobs], logprobs)

    def _of(self, tokens: Sequence[bytes], logprobs: Sequence[TokenLogprob | None]) -> CompletionLogprobs:
        return CompletionLogprobs(
            tokens=[_text(token) for token in tokens],
            token_logprobs=[None if each is None else _finite(each.logprob) for each in logprobs],
            top_logprobs=[None if each is None else _by_text(each) for each in logprobs],
            text_offset=[self._offset(token) for token in tokens],
        )

    def _offset(self, token: bytes) -> int:
        """The offset at which the token begins; for one that begins within a character, the offset of that character."""
        before = self._num_characters
        self._num_characters += len(self._characters.decode(token))
        return before


def prompt_logprobs(logprobs: Iterable[TokenLogprob | None]) -> PromptLogprobs:
    """Each token and its alternatives, by id."""
    return [None if each is None else _by_id(each) for each in logprobs]


def _by_id(each: TokenLogprob) -> dict[int, PromptLogprob]:
    ranks = {top.token_id: rank for rank, top in enumerate(each.top, 1)}
    all_ = [Alternative(each.token_id, each.token, each.logprob), *each.top]
    return {
        one.token_id: PromptLogprob(logprob=_finite(one.logprob), rank=ranks.get(one.token_id), decoded_token=_text(one.token))
        for one in all_
    }


def _by_text(each: TokenLogprob) -> dict[str, float]:
    """The likeliest and the token itself. Of tokens that read alike, the likeliest counts."""
    found: dict[str, float] = {}
    for top in each.top:
        found.setdefault(_text(top.token), _finite(top.logprob))
    found.setdefault(_text(each.token), _finite(each.logprob))
    return found


def _text(token: bytes) -> str:
    return token.decode(errors="replace")


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
