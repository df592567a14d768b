"""Whose turn it is, whose row is exchanged, who is refused; and what holds whatever arrives: nobody starves, no row idles."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batching.scheduler import Scheduler
from runtime.batching.sequence import Sequence, SequenceStatus
from tests.doubles.sequences import make_sequence


class Rows:
    """A scheduler with its rows filled, as an engine does it; sequences end under the test's control."""

    def __init__(self, num_rows: int = 4, max_waiting: int = 10_000) -> None:
        self.num_rows = num_rows
        self.scheduler = Scheduler(num_rows=num_rows, max_waiting=max_waiting)

    def add(self, principal: str = "a", count: int = 1, *, group: int | None = None, priority: int = 0) -> list[Sequence]:
        added = [make_sequence(principal=principal, group=group, priority=priority) for _ in range(count)]
        for sequence in added:
            self.scheduler.add(sequence)
        return added

    def fill(self) -> list[Sequence]:
        """Admits while rows are free. Who was admitted, in order."""
        admitted = []
        while (sequence := self.scheduler.first_waiting()) is not None:
            self.scheduler.admit(sequence)
            admitted.append(sequence)
        return admitted

    def exchange(self) -> list[tuple[Sequence, Sequence]]:
        """Carries out every exchange. Returns which sequence lost its row to which."""
        exchanged = []
        while (swap := self.scheduler.plan_exchange()) is not None:
            self.scheduler.preempt(swap.victim)
            self.scheduler.admit(swap.newcomer)
            exchanged.append((swap.victim, swap.newcomer))
            assert len(exchanged) <= self.num_rows
        return exchanged

    def end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)

    @property
    def shares(self) -> Counter[str]:
        return Counter(sequence.principal for sequence in self.scheduler.running)


def test_one_request_for_many_answers_waits_behind_a_newcomer() -> None:
    rows = Rows(num_rows=4)
    flood = rows.add(count=128, group=1)
    rows.fill()
    (chat,) = rows.add()
    rows.end(flood[0])
    assert rows.fill() == [chat]


def test_with_one_row_requests_take_turns() -> None:
    rows = Rows(num_rows=1)
    flood = rows.add(count=6, group=1)
    served = rows.fill()
    chats = []
    for _ in range(3):
        chats += rows.add()
        rows.end(served[-1])
        served += rows.fill()
        rows.end(served[-1])
        served += rows.fill()
    assert served == [flood[0], chats[0], flood[1], chats[1], flood[2], chats[2], flood[3]]


def test_answers_of_one_request_keep_their_order() -> None:
    rows = Rows(num_rows=2)
    answers = rows.add(count=5, group=1)
    order = rows.fill()
    while len(order) < 5:
        rows.end(order[len(order) - 2])
        order += rows.fill()
    assert order == answers


def test_principals_take_turns_however_many_requests_they_have() -> None:
    rows = Rows(num_rows=1)
    rows.add("a", 50)
    rows.add("b", 5)
    rows.add("c", 5)
    order = []
    for _ in range(9):
        (admitted,) = rows.fill()
        order.append(admitted.principal)
        rows.end(admitted)
    assert order == ["a", "b", "c"] * 3


def test_a_principal_that_comes_again_is_not_behind_one_that_was_served_since() -> None:
    rows = Rows(num_rows=1)
    rows.add("flood", 50)
    order = []
    for _ in range(3):
        (flooding,) = rows.fill()
        rows.add("chat")
        rows.end(flooding)
        (chatting,) = rows.fill()
        order.append(chatting.principal)
        rows.end(chatting)
    assert order == ["chat"] * 3


def test_long_answers_count_as_the_rows_that_they_hold() -> None:
    """Taking turns alone would let them pile up until they hold every row."""
    rows = Rows(num_rows=8)
    rows.add("long", 100)
    rows.add("short", 400)
    rows.fill()
    for _ in range(50):
        for sequence in [each for each in rows.scheduler.running if each.principal == "short"]:
            rows.end(sequence)
        rows.fill()
        assert rows.shares == {"long": 4, "short": 4}


def test_a_lower_priority_number_comes_before_any_turn() -> None:
    rows = Rows(num_rows=1)
    rows.add("a")
    (urgent,) = rows.add("b", priority=-1)
    (more_urgent,) = rows.add("b", priority=-2)
    assert rows.fill() == [more_urgent]
    rows.end(more_urgent)
    assert rows.fill() == [urgent]


def test_alone_a_flood_has_every_row() -> None:
    rows = Rows(num_rows=4)
    rows.add(count=128, group=1)
    assert len(rows.fill()) == 4
    assert rows.exchange() == []


# ---- rows that are held already ----


def test_a_newcomer_gets_the_row_of_the_floods_newest_answer() -> None:
    rows = Rows(num_rows=4)
    flood = rows.add(count=128, group=1)
    rows.fill()
    (chat,) = rows.add()
    assert rows.exchange() == [(flood[3], chat)]
    rows.end(chat)
    assert rows.fill() == [flood[3]], "what lost its row is the next of its request"


def test_another_principal_gets_a_row_of_a_flood_of_single_requests() -> None:
    rows = Rows(num_rows=4)
    flood = rows.add("flood", 300)
    rows.fill()
    chats = rows.add("chat", 3)
    assert rows.exchange() == [(flood[3], chats[0])], "one: the others wait for rows that become free"
    rows.end(flood[0])
    assert rows.fill() == [chats[1]]


def test_single_requests_of_one_principal_displace_nothing() -> None:
    rows = Rows(num_rows=4)
    rows.add(count=300)
    rows.fill()
    assert rows.exchange() == []


def test_nobody_loses_the_last_row() -> None:
    rows = Rows(num_rows=2)
    rows.add("a", 9)
    rows.add("b", 9)
    rows.fill()
    rows.add("c", 9)
    assert rows.exchange() == []


def test_a_request_with_a_row_keeps_it_from_its_principals_other_requests() -> None:
    rows = Rows(num_rows=4)
    flood = rows.add(count=128, group=1)
    rows.fill()
    chats = rows.add(count=9)
    assert rows.exchange() == [(flood[3 - i], chats[i]) for i in range(3)]
    assert Counter(each.group for each in rows.scheduler.running) == {1: 1, None: 3}


def test_what_is_more_urgent_displaces_and_is_not_displaced() -> None:
    rows = Rows(num_rows=2)
    rows.add("a", 2, priority=-1)
    rows.fill()
    rows.add("b")
    assert rows.exchange() == []
    (urgent,) = rows.add("c", priority=-1)
    assert [newcomer for _, newcomer in rows.exchange()] == [urgent]


# ---- memory ----


def test_with_too_little_memory_who_holds_the_most_rows_gives_way() -> None:
    rows = Rows(num_rows=8)
    flood = rows.add("flood", 5, group=1)
    rows.fill()
    rows.add("chat")
    rows.fill()
    assert rows.scheduler.plan_preemption() is flood[4]


# ---- places in the queue ----


def test_while_there_is_room_nobody_is_refused() -> None:
    rows = Rows(num_rows=1, max_waiting=2)
    rows.add(count=2)
    assert rows.scheduler.plan_refusal(make_sequence(principal="b")) == ()


def test_a_full_queue_costs_the_principal_with_the_most_waiting() -> None:
    rows = Rows(num_rows=1, max_waiting=10)
    flood = rows.add("flood", 11)
    rows.fill()
    assert rows.scheduler.plan_refusal(make_sequence(principal="chat")) == (flood[-1],)
    newest = make_sequence(principal="flood")
    assert rows.scheduler.plan_refusal(newest) == (newest,)


def test_within_one_principal_it_costs_the_request_with_the_most_waiting_as_a_whole() -> None:
    rows = Rows(num_rows=1, max_waiting=10)
    rows.add(count=3)
    flood = rows.add(count=8, group=1)
    rows.fill()
    assert rows.scheduler.plan_refusal(make_sequence()) == tuple(flood)


def test_a_request_that_does_not_fit_is_refused_with_what_waits_of_it() -> None:
    rows = Rows(num_rows=1, max_waiting=4)
    rows.add()
    waiting = rows.add(count=4, group=1)
    rows.fill()
    newcomer = make_sequence(principal="a", group=1)
    assert rows.scheduler.plan_refusal(newcomer) == (*waiting, newcomer)


def test_of_equals_the_newcomer_is_refused() -> None:
    rows = Rows(num_rows=1, max_waiting=4)
    rows.add("a", 3)
    rows.add("b", 2)
    rows.fill()
    newcomer = make_sequence(principal="b")
    assert rows.scheduler.plan_refusal(newcomer) == (newcomer,)


def begun_flood(max_waiting: int = 8) -> Rows:
    """One request's answers hold the only row and every place in the queue."""
    rows = Rows(num_rows=1, max_waiting=max_waiting)
    rows.add("flood", 1 + max_waiting, group=1)
    rows.fill()
    return rows


@pytest.mark.parametrize("principal", ["flood", "chat"])
def test_beside_a_request_that_has_begun_and_fills_the_queue_others_use_the_reserve(principal: str) -> None:
    rows = begun_flood(max_waiting=16)
    for _ in range(2):
        assert rows.scheduler.plan_refusal(make_sequence(principal=principal)) == ()
        rows.add(principal)
    assert rows.scheduler.plan_refusal(make_sequence(principal=principal)) != ()


def test_the_reserve_is_not_for_more_of_the_same_request() -> None:
    rows = begun_flood()
    newcomer = make_sequence(principal="flood", group=1)
    assert rows.scheduler.plan_refusal(newcomer)[-1] is newcomer


def test_beyond_the_reserve_another_principal_loses_what_has_begun_and_ones_own_requests_wait() -> None:
    rows = begun_flood()
    rows.add("flood")
    own = make_sequence(principal="flood")
    assert rows.scheduler.plan_refusal(own) == (own,)
    (single,) = rows.scheduler.plan_refusal(make_sequence(principal="chat"))
    assert single.group is None, "first what has not begun"
    rows.scheduler.remove(single)
    rows.add("chat")
    refused = rows.scheduler.plan_refusal(make_sequence(principal="chat"))
    assert [each.group for each in refused] == [1] * 8


def test_a_request_that_has_ended_is_not_remembered() -> None:
    rows = begun_flood(max_waiting=1)
    for sequence in [*rows.scheduler.running, *rows.fill()]:
        rows.end(sequence)
    rows.fill()
    (last,) = rows.scheduler.running
    rows.end(last)
    rows.add("chat")
    rows.fill()
    flood = rows.add("flood", 1, group=1)
    assert rows.scheduler.plan_refusal(make_sequence(principal="flood", group=1))[0] is flood[0]


def test_an_answer_that_has_begun_is_never_refused() -> None:
    rows = Rows(num_rows=4, max_waiting=1)
    flood = rows.add("flood", 4)
    rows.fill()
    for sequence in flood:
        sequence.is_announced = True
    (chat,) = rows.add("chat")
    rows.exchange()
    assert chat.status is not SequenceStatus.WAITING
    newcomer = make_sequence(principal="other")
    assert rows.scheduler.plan_refusal(newcomer) == (newcomer,)


# ---- whatever arrives ----

arrivals = st.lists(
    st.tuples(
        st.integers(0, 30),  # in which round it arrives
        st.sampled_from("abc"),
        st.none() | st.integers(0, 2),  # its group
        st.integers(1, 12),  # how many rounds its answer takes
        st.sampled_from([0, 0, 0, 1]),  # its priority
    ),
    min_size=1,
    max_size=40,
)


@given(arrivals, st.integers(1, 5))
def test_everybody_is_served_and_no_row_idles(requests: list[tuple[int, str, int | None, int, int]], num_rows: int) -> None:
    rows = Rows(num_rows)
    left: dict[Sequence, int] = {}
    for now in range(31 + sum(length for *_, length, _ in requests)):
        for _, principal, group, length, priority in (each for each in requests if each[0] == now):
            (added,) = rows.add(principal, group=group, priority=priority)
            left[added] = length
        rows.fill()
        rows.exchange()
        check(rows, [each for each in left if each.status is SequenceStatus.WAITING])
        for sequence in list(rows.scheduler.running):
            left[sequence] -= 1
            if not left[sequence]:
                rows.end(sequence)
                del left[sequence]
    assert not left, "each round ends one round of an answer at least"


def check(rows: Rows, waiting: list[Sequence]) -> None:
    running = rows.scheduler.running
    assert rows.scheduler.num_waiting == len(waiting)
    assert len(running) == min(rows.num_rows, len(running) + len(waiting)), "a row idles while somebody waits"
    requests = Counter(each.client_request for each in running)
    for sequence in waiting:
        losers = [each for each in running if each.priority >= sequence.priority]
        if not rows.shares[sequence.principal]:
            assert all(rows.shares[each.principal] == 1 for each in losers), "a principal waits without any row"
        if not requests[sequence.client_request]:
            kin = [each for each in losers if each.principal == sequence.principal]
            assert all(requests[each.client_request] == 1 for each in kin), "a request waits without any row"


@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.integers(1, 6))
def test_turns_of_equal_answers_differ_by_one_at_most(sizes: list[int], num_rows: int) -> None:
    """While several principals have something waiting, each has had as many answers as any other, to within one."""
    rows = Rows(num_rows)
    for index, size in enumerate(sizes):
        rows.add(f"principal {index}", size)
    served: Counter[str] = Counter()
    unserved = Counter({f"principal {index}": size for index, size in enumerate(sizes)})
    while True:
        for sequence in rows.fill():
            served[sequence.principal] += 1
            unserved[sequence.principal] -= 1
            backlogged = [principal for principal in unserved if unserved[principal]]
            counts = [served[principal] for principal in backlogged]
            assert not counts or max(counts) - min(counts) <= 1
        if not rows.scheduler.running:
            break
        rows.end(rows.scheduler.running[0])
    assert sum(served.values()) == sum(sizes)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 2)), min_size=2, max_size=12))
def test_something_always_ends_when_memory_is_short(holders: list[tuple[str, int | None]]) -> None:
    """The earliest never gives way while another runs."""
    rows = Rows(num_rows=12)
    sequences = [rows.add(principal, group=group)[0] for principal, group in holders]
    rows.fill()
    while (victim := rows.scheduler.plan_preemption()) is not None:
        assert victim is not sequences[0]
        rows.scheduler.preempt(victim)
    assert rows.scheduler.running == [sequences[0]]
