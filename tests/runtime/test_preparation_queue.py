"""For how long the first request that is not prepared has been first."""

from __future__ import annotations

import pytest

from runtime.protocol.messages import Drain, Submit
from runtime.protocol.request import TextPrompt
from runtime.worker.intake import PreparationQueue, Unprepared
from tests.doubles.engine_bench import Clock


def submitted(number: int) -> Submit:
    return Submit(request=number, prompt=TextPrompt(text="x"))


def test_the_first_ages_until_it_is_done_and_the_next_restarts() -> None:
    clock = Clock()
    queue = PreparationQueue(clock)
    assert queue.oldest() == (None, 0.0)
    queue.put(submitted(1))
    clock.now += 3.0
    queue.put(submitted(2))
    clock.now += 1.0
    assert queue.oldest() == (1, 4.0)
    assert queue.first() == submitted(1)
    assert queue.oldest() == (1, 4.0)
    queue.done()
    assert queue.oldest() == (2, 0.0)
    clock.now += 2.0
    assert queue.oldest() == (2, 2.0)
    queue.done()
    assert queue.oldest() == (None, 0.0)


def test_after_a_pause_nothing_is_old() -> None:
    clock = Clock()
    queue = PreparationQueue(clock)
    clock.now += 100.0
    queue.put(submitted(1))
    assert queue.oldest() == (1, 0.0)


@pytest.mark.parametrize("messages", [[submitted(1), Drain(), submitted(2)]])
def test_messages_keep_their_order(messages: list[Unprepared]) -> None:
    queue = PreparationQueue()
    for message in messages:
        queue.put(message)
    for message in messages:
        assert queue.first() is message
        queue.done()
