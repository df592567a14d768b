"""The sequences that wait for a row, and their order. Pure: no clock, lock, thread, log or array.

The next row goes, in this order, to
    1. the lowest priority number;
    2. the principal that holds the fewest rows; of several the one that was given a row longest ago (round robin);
    3. of its client requests, the one that holds the fewest rows; of several the one that came or had its turn longest ago;
    4. of that request's answers, the first submitted.

Counting rows that are held, and not only turns, makes long answers count as what they are: a row gives one token per step, so equal
rows are equal service (max-min fairness; compare the token counters of Sheng et al. 2024, "Fairness in serving large language
models", which also remember the past). No principal starves: one without rows is served within one round.

Rows that are held already are not left to a flood either, see `plan_exchange`; nor are places in the queue, see `plan_refusal`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runtime.batching.sequence import ClientRequest, Sequence


@dataclass(frozen=True, slots=True)
class Exchange:
    """The waiting `newcomer` gets the row of `victim`, which waits again and later continues where it was."""

    victim: Sequence
    newcomer: Sequence


class FairQueue:
    """Holds the waiting sequences, and the numbers of rows of each principal and each client request.

    A sequence is `add`ed, then `take`n out with a row or `discard`ed; a sequence that took a row is `release`d when it leaves the
    row.
    """

    def __init__(self) -> None:
        self._levels: dict[int, dict[str, dict[ClientRequest, list[Sequence]]]] = {}  # by priority; requests in order of their turn
        self._arrivals: dict[int, int] = {}  # of each sequence, until it is forgotten
        self._num_arrived = 0
        self._num_waiting = 0
        self._served: dict[str, int] = {}  # of each principal, the number of the last row that was given to it
        self._num_served = 0
        self._principal_rows: Counter[str] = Counter()
        self._request_rows: Counter[ClientRequest] = Counter()
        self._served_requests: set[ClientRequest] = set()  # that have been given a row and are not forgotten

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[Sequence]:
        """All that wait, in no order that means anything."""
        for level in self._levels.values():
            for requests in level.values():
                for waiting in requests.values():
                    yield from waiting

    def add(self, sequence: Sequence) -> None:
        """A new sequence, or one that lost its row: that one, and its client request, go before those that came after."""
        level = self._levels.setdefault(sequence.priority, {})
        requests = level.setdefault(sequence.principal, {})
        if sequence.request in self._arrivals:
            waiting = requests.pop(sequence.client_request, [])
            level[sequence.principal] = {sequence.client_request: waiting} | requests
        else:
            self._arrivals[sequence.request] = self._num_arrived
            self._num_arrived += 1
            waiting = requests.setdefault(sequence.client_request, [])
        waiting.append(sequence)
        waiting.sort(key=self._arrival)
        self._num_waiting += 1

    def first(self) -> Sequence | None:
        """The sequence whose turn it is; None when none waits."""
        if not self._levels:
            return None
        level = self._levels[min(self._levels)]
        principal = min(level, key=lambda each: (self._principal_rows[each], self._served.get(each, 0)))
        return self._first_of(level[principal])

    def _first_of(self, requests: dict[ClientRequest, list[Sequence]]) -> Sequence:
        """Looks at few: requests that wait and hold rows are no more than there are rows."""
        best, fewest = None, 0
        for request, waiting in requests.items():
            rows = self._request_rows[request]
            if best is None or rows < fewest:
                best, fewest = waiting[0], rows
            if rows == 0:
                break
        assert best is not None
        return best

    def take(self, sequence: Sequence) -> None:
        """It waits no more and holds a row."""
        self.discard(sequence)
        self._num_served += 1
        self._served[sequence.principal] = self._num_served
        self._principal_rows[sequence.principal] += 1
        self._request_rows[sequence.client_request] += 1
        self._served_requests.add(sequence.client_request)
        self._end_turn(sequence)

    def release(self, sequence: Sequence) -> None:
        """It gives its row back."""
        self._principal_rows = self._principal_rows - Counter((sequence.principal,))
        self._request_rows = self._request_rows - Counter((sequence.client_request,))
        self._end_turn(sequence)

    def discard(self, sequence: Sequence) -> None:
        """It waits no more."""
        level = self._levels[sequence.priority]
        requests = level[sequence.principal]
        waiting = requests[sequence.client_request]
        waiting.remove(sequence)
        self._num_waiting -= 1
        if not waiting:
            del requests[sequence.client_request]
        if not requests:
            del level[sequence.principal]
        if not level:
            del self._levels[sequence.priority]

    def forget(self, sequence: Sequence) -> None:
        """It has left for good, and with the last of a client request that one."""
        del self._arrivals[sequence.request]
        request = sequence.client_request
        if request not in self._request_rows and not self._is_waiting(request, sequence.priority):
            self._served_requests.discard(request)

    def _end_turn(self, sequence: Sequence) -> None:
        """Moves its client request behind all others that wait."""
        request = sequence.client_request
        if self._is_waiting(request, sequence.priority):
            requests = self._levels[sequence.priority][sequence.principal]
            requests[request] = requests.pop(request)

    def _is_waiting(self, request: ClientRequest, priority: int) -> bool:
        return request in self._levels.get(priority, {}).get(request.principal, {})

    def _arrival(self, sequence: Sequence) -> int:
        return self._arrivals[sequence.request]

    # ---- rows that are held already ----

    def plan_preemption(self, running: Iterable[Sequence]) -> Sequence:
        """The sequence to preempt: of the highest priority number, then of the principal and the client request with the most rows,
        then the newest.

        The earliest of the most urgent is never chosen while another runs, so that something always ends.
        """
        return max(running, key=self._dispensability)

    def _dispensability(self, sequence: Sequence) -> tuple[int, int, int, int]:
        return (
            sequence.priority,
            self._principal_rows[sequence.principal],
            self._request_rows[sequence.client_request],
            self._arrival(sequence),
        )

    def plan_exchange(self, running: list[Sequence]) -> Exchange | None:
        """The row that a principal without any gets from the one that holds the most; for when no row is free otherwise.

        A principal without a row gets one of a principal's that holds two at least; a client request without a row one of another
        request's of the same principal that holds two at least. No one gets a second row this way, and no one loses the last: each
        arrival displaces one row at most, and with one row each nothing is displaced. A more urgent row is left alone.
        """
        if max(self._request_rows.values(), default=0) < 2 and max(self._principal_rows.values(), default=0) < 2:
            return None
        for priority in sorted(self._levels):
            level = self._levels[priority]
            for principal in sorted(level, key=lambda each: (self._principal_rows[each], self._served.get(each, 0))):
                newcomer = self._first_of(level[principal])
                if self._request_rows[newcomer.client_request]:
                    continue
                victims = [each for each in running if each.priority >= priority and self._may_lose(each, newcomer)]
                if victims:
                    return Exchange(self.plan_preemption(victims), newcomer)
        return None

    def _may_lose(self, sequence: Sequence, newcomer: Sequence) -> bool:
        if self._principal_rows[newcomer.principal] == 0:
            return self._principal_rows[sequence.principal] > 1
        return sequence.principal == newcomer.principal and self._request_rows[sequence.client_request] > 1

    # ---- places in the queue ----

    def plan_refusal(self, newcomer: Sequence, *, has_reserve: bool) -> tuple[Sequence, ...]:
        """Who is refused when the queue is full and one more comes: what waits of one client request, the newcomer as its last.

        It is a request of the principal with the most waiting, the newcomer counted; of its requests of which nothing has begun,
        and the newcomer's, the one with the most waiting, of several the newest. A request is refused whole, since its caller takes
        all of its answers or none. Where only requests that have begun hold more places, a newcomer with nothing yet may use the
        reserve (then none is refused); without one, another principal loses such a request all the same.
        """
        waiting = self._unbegun_by_request()
        own, served = newcomer.client_request, self._served_requests
        is_first = own not in waiting and own not in served
        waiting[own] = [*waiting.pop(own, []), newcomer]
        sizes: Counter[str] = Counter()
        for request, sequences in waiting.items():
            sizes[request.principal] += len(sequences)
        largest = max(sizes, key=lambda principal: (sizes[principal], principal == newcomer.principal))
        theirs = [request for request in reversed(waiting) if request.principal == largest]
        losers = [request for request in theirs if request == own or request not in served]
        loser = max(losers, key=lambda request: len(waiting[request]), default=None)
        if loser is not None and loser != own:
            return tuple(waiting[loser])
        most = max(theirs, key=lambda request: len(waiting[request]))
        if has_reserve and is_first and len(waiting[most]) > len(waiting[own]):
            return ()
        return tuple(waiting[own if largest == own.principal else most])

    def _unbegun_by_request(self) -> dict[ClientRequest, list[Sequence]]:
        """The waiting sequences of client requests that have not begun, by request: the newest request last, and of each the
        newest.
        """
        waiting: dict[ClientRequest, list[Sequence]] = {}
        for sequence in sorted((each for each in self if not each.has_begun), key=self._arrival):
            waiting.setdefault(sequence.client_request, []).append(sequence)
        return waiting
