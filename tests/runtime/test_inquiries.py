"""Inquiries with one answer each: every caller gets its own answer or the error, and none is kept waiting."""

from __future__ import annotations

import asyncio

import pytest

from runtime.pool.generation import Inquiries
from runtime.protocol.errors import EngineDead, InvalidRequest
from runtime.protocol.messages import Detokenized
from tests.doubles.event_loops import run
from tests.doubles.scripted_workers import settle


def chat_body(text: str, number: int) -> Detokenized:
    return Detokenized(request=number, text=text)


def test_each_gets_its_own_answer_in_whatever_order_they_come() -> None:
    async def scenario() -> None:
        inquiries = Inquiries()
        first, second = await settle(inquiries.answer(1), inquiries.answer(2))
        assert len(inquiries) == 2
        inquiries.settle(chat_body("b", 2))
        inquiries.settle(chat_body("a", 1))
        assert (await first, await second) == (chat_body("a", 1), chat_body("b", 2))
        assert len(inquiries) == 0

    run(scenario)


def test_a_refusal_is_raised_where_it_was_requested() -> None:
    async def scenario() -> None:
        inquiries = Inquiries()
        refused, answered = await settle(inquiries.answer(1), inquiries.answer(2))
        inquiries.fail(1, InvalidRequest("no"))
        inquiries.settle(chat_body("b", 2))
        with pytest.raises(InvalidRequest, match="no"):
            await refused
        assert await answered == chat_body("b", 2)

    run(scenario)


def test_all_fail_together() -> None:
    async def scenario() -> None:
        inquiries = Inquiries()
        requested = await settle(inquiries.answer(1), inquiries.answer(2))
        inquiries.fail_all(EngineDead("gone"))
        for each in requested:
            with pytest.raises(EngineDead):
                await each
        assert len(inquiries) == 0

    run(scenario)


def test_who_leaves_is_forgotten_and_what_comes_for_him_ignored() -> None:
    async def scenario() -> None:
        inquiries = Inquiries()
        (requested,) = await settle(inquiries.answer(1))
        requested.cancel()
        inquiries.settle(chat_body("late", 1))
        with pytest.raises(asyncio.CancelledError):
            await requested
        inquiries.settle(chat_body("later", 1))
        inquiries.fail(1, EngineDead("gone"))
        assert len(inquiries) == 0

    run(scenario)
