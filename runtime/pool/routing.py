"""Which replica of a model takes a request: the one that computed the same beginning before, unless it has much more to do. Pure.

As in SGLang's cache-aware router, without its tree: a prompt's beginnings are hashed block by block, each replica remembers the
hashes it has seen, and the longest match wins (Zheng et al., "SGLang", 2024). Knows no tokens, so that no tokenizer is needed here.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from runtime.protocol.request import ChatPrompt, Prompt, TextPrompt

BLOCK_BYTES = 256
MOST_BYTES = 64 << 10  # of a prompt: who shares so much shares enough
MOST_REMEMBERED = 4096  # blocks per replica
MOST_IMBALANCE = 4  # open requests by which a replica may be ahead of another before prefixes stop counting

Blocks = tuple[int, ...]


class SeenPrefixes:
    """The beginnings that one replica has computed lately, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def num_matched(self, blocks: Blocks) -> int:
        return next((i for i, block in enumerate(blocks) if block not in self._blocks), len(blocks))

    def remember(self, blocks: Blocks) -> None:
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > MOST_REMEMBERED:
            self._blocks.popitem(last=False)


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """num_matched: blocks of this prompt that the replica has seen."""

    num_open: int
    num_matched: int


def prefix_blocks(prompt: Prompt) -> Blocks:
    """A hash per whole block, each of everything up to its end: equal where prompts begin alike.

    Empty for a prompt that cannot be encoded: sending it to a worker refuses it.
    """
    try:
        content = _bytes(prompt)[:MOST_BYTES]
    except (UnicodeEncodeError, OverflowError, RecursionError):
        return ()
    blocks: list[int] = []
    for end in range(BLOCK_BYTES, len(content) + 1, BLOCK_BYTES):
        blocks.append(hash((blocks[-1] if blocks else 0, content[end - BLOCK_BYTES : end])))
    return tuple(blocks)


def choose_replica(loads: Sequence[ReplicaLoad]) -> int:
    """The index of the best: most blocks seen, then fewest open requests, then the first."""
    fewest = min(load.num_open for load in loads)
    balanced = [i for i, load in enumerate(loads) if load.num_open - fewest <= MOST_IMBALANCE]
    return min(balanced, key=lambda i: (-loads[i].num_matched, loads[i].num_open, i))


def _bytes(prompt: Prompt) -> bytes:
    """What the model will read, in the order in which templates write it: tools, then messages."""
    if isinstance(prompt, ChatPrompt):
        return msgspec.json.encode((prompt.tools, prompt.messages))
    if isinstance(prompt, TextPrompt):
        return prompt.text[:MOST_BYTES].encode(errors="replace")
    return array("q", prompt.token_ids[: MOST_BYTES // 8]).tobytes()
