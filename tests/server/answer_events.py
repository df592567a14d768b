"""Events of a scripted answer: a token per piece of text, then one that ends it; and the whole answer that they make."""

from __future__ import annotations

from runtime.protocol.events import Alternative, Chunk, Finished, FinishReason, Started, Timings, TokenLogprob, Usage
from runtime.text.formats.reader import AnswerParser
from server.dialects.openai.rendering import Identity
from server.inference.answer_parts import parts_of
from server.inference.inference import Answer, joined_logprobs
from server.inference.resolution import Resolution, ServedModel

IDENTITY = Identity.new("chatcmpl", Resolution("m", ServedModel("m:1", 0), "test"), "auto")
STARTED = Started(request=1, prompt_tokens=3, cached_tokens=1, prompt_token_ids=[7, 8, 9])


def logprob(text: str, value: float = -0.5) -> TokenLogprob:
    top = [Alternative(1, text.encode(), value), Alternative(2, b"z", float("-inf"))]
    return TokenLogprob(1, text.encode(), value, top)


def events_of(pieces: list[str], reason: FinishReason = FinishReason.STOP) -> list[Chunk | Finished]:
    """A token per piece, and one that ends the answer."""
    chunks: list[Chunk | Finished] = [Chunk(1, piece, [i], [logprob(piece)]) for i, piece in enumerate(pieces)]
    end = Finished(
        request=1,
        reason=reason,
        usage=Usage(prompt_tokens=3, completion_tokens=len(pieces) + 1, cached_tokens=1),
        timings=Timings(queue_s=0, prefill_s=0, decode_s=0),
        token_ids=[99],
        cumulative_logprob=-0.5 * len(pieces),
    )
    return [*chunks, end]


def answer_of(pieces: list[str], reason: FinishReason = FinishReason.STOP, *, parser: AnswerParser | None = None) -> Answer:
    events = events_of(pieces, reason)
    text, finished = "".join(pieces), events[-1]
    assert isinstance(finished, Finished)
    ids = [token for event in events for token in event.token_ids]
    return Answer(text, parts_of(text, parser), ids, joined_logprobs(events), STARTED, finished)
