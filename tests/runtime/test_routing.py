"""Which replica takes a request: the one that has seen its beginning, unless it has much more to do."""

from __future__ import annotations

import pytest

from runtime.pool import routing
from runtime.pool.routing import BLOCK_BYTES, MOST_BYTES, MOST_IMBALANCE, ReplicaLoad, SeenPrefixes, choose_replica, prefix_blocks
from runtime.protocol.request import ChatPrompt, Prompt, TextPrompt, TokensPrompt

SYSTEM = "You answer briefly. " * 100


def chat(*expected_text: str) -> ChatPrompt:
    return ChatPrompt(messages=[{"role": "user", "content": each} for each in expected_text])


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (TextPrompt(text=SYSTEM + "a"), TextPrompt(text=SYSTEM + "b" * 3000)),
        (chat(SYSTEM), chat(SYSTEM, "and then?")),
        (TokensPrompt(token_ids=list(range(1000))), TokensPrompt(token_ids=[*range(1000), *range(2000)])),
    ],
    ids=["text", "chat", "tokens"],
)
def test_prompts_that_begin_alike_share_their_first_blocks(short: Prompt, long: Prompt) -> None:
    seen = SeenPrefixes()
    blocks = prefix_blocks(short)
    seen.remember(blocks)
    assert len(blocks) >= 4
    assert len(blocks) - 1 <= seen.num_matched(prefix_blocks(long)) <= len(blocks)


def test_what_comes_before_counts() -> None:
    """The same block after another beginning is another block."""
    seen = SeenPrefixes()
    seen.remember(prefix_blocks(TextPrompt(text="a" * BLOCK_BYTES + "b" * BLOCK_BYTES)))
    assert seen.num_matched(prefix_blocks(TextPrompt(text="b" * BLOCK_BYTES))) == 0
    assert seen.num_matched(prefix_blocks(TextPrompt(text="a" * BLOCK_BYTES + "c" * BLOCK_BYTES))) == 1


def test_tools_come_before_messages() -> None:
    with_tools = ChatPrompt(messages=[{"role": "user", "content": SYSTEM}], tools=[{"type": "function"}])
    assert prefix_blocks(with_tools)[0] != prefix_blocks(chat(SYSTEM))[0]


def test_short_prompts_and_the_ends_of_very_long_ones_do_not_count() -> None:
    assert prefix_blocks(TextPrompt(text="Hi!")) == ()
    assert len(prefix_blocks(TextPrompt(text="x" * (2 * MOST_BYTES)))) == MOST_BYTES // BLOCK_BYTES


def deep(depth: int) -> dict[str, object]:
    nested: dict[str, object] = {}
    for _ in range(depth):
        nested = {"content": nested}
    return nested


@pytest.mark.parametrize(
    "prompt",
    [
        chat("\ud800" * 300),
        ChatPrompt(messages=[{"content": 1 << 80}]),
        ChatPrompt(messages=[deep(100_000)]),
        TokensPrompt(token_ids=[1 << 70]),
    ],
    ids=["half a character", "a large number", "nesting", "a large token"],
)
def test_what_cannot_be_encoded_has_no_beginning(prompt: Prompt) -> None:
    """It is refused where every prompt is, when it is sent."""
    assert prefix_blocks(prompt) == ()


def test_the_least_recently_seen_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "MOST_REMEMBERED", 3)
    seen = SeenPrefixes()
    for blocks in ((1, 2), (3,), (1, 2), (4,)):
        seen.remember(blocks)
    assert [seen.num_matched((block,)) for block in (1, 2, 3, 4)] == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("loads", "chosen"),
    [
        ([(0, 0), (0, 0)], 0),
        ([(2, 0), (1, 0)], 1),
        ([(0, 1), (0, 3)], 1),
        ([(MOST_IMBALANCE, 5), (0, 0)], 0),
        ([(MOST_IMBALANCE + 1, 5), (0, 0)], 1),
        ([(3, 2), (1, 2), (9, 9)], 1),
    ],
    ids=["the first", "fewest open", "most seen", "seen, within bounds", "too busy", "seen alike: fewest open"],
)
def test_the_choice(loads: list[tuple[int, int]], chosen: int) -> None:
    assert choose_replica([ReplicaLoad(*load) for load in loads]) == chosen
