"""A worker that hangs, a gateway that was suspended, and the worker's pulse."""

from __future__ import annotations

from runtime.pool.watchdog import Patience, Watchdog
from runtime.protocol.messages import Heartbeat
from runtime.worker.threads import Pulse
from tests.doubles.engine_bench import Clock

PATIENCE = Patience(step_s=10.0, silent_looks=3)


def test_silence_is_borne_for_so_many_looks() -> None:
    watchdog = Watchdog(PATIENCE)
    assert [watchdog.look() for _ in range(3)] == [None] * 3
    assert watchdog.look() == "it gave no sign of life for 4 s"


def test_a_worker_whose_steps_are_silent_is_given_as_long_as_a_step() -> None:
    watchdog = Watchdog(PATIENCE, silent_steps=True)
    assert [watchdog.look() for _ in range(10)] == [None] * 10
    assert watchdog.look() == "it gave no sign of life for 11 s"


def test_any_message_ends_the_silence() -> None:
    watchdog = Watchdog(PATIENCE)
    for _ in range(5):
        for _ in range(3):
            assert watchdog.look() is None
        watchdog.message_received()


def test_time_alone_is_no_silence() -> None:
    """While the gateway was suspended, no look was taken, whatever the clock shows."""
    watchdog = Watchdog(PATIENCE)
    watchdog.message_received(Heartbeat(step_s=9.0))
    assert watchdog.look() is None


def test_a_step_that_takes_too_long_hangs_though_the_process_lives() -> None:
    watchdog = Watchdog(PATIENCE)
    for step_s in (8.0, 10.0):
        watchdog.message_received(Heartbeat(step_s=step_s))
        assert watchdog.look() is None
    watchdog.message_received(Heartbeat(step_s=10.5))
    assert watchdog.look() == "a step took longer than 10 s"


def test_the_end_of_a_long_step_is_forgiven() -> None:
    watchdog = Watchdog(PATIENCE)
    watchdog.message_received(Heartbeat(step_s=10.5))
    watchdog.message_received()
    assert watchdog.look() is None


def test_the_pulse_reports_how_long_the_step_has_taken() -> None:
    sent: list[Heartbeat] = []
    clock = Clock()
    pulse = Pulse(sent.append, lambda: (None, 0.0), clock)
    pulse.beat()
    with pulse:
        clock.now += 7.0
        pulse.beat()
    pulse.beat()
    assert [beat.step_s for beat in sent] == [0.0, 7.0, 0.0]


def test_a_preparation_that_takes_too_long_hangs_though_steps_go_on() -> None:
    watchdog = Watchdog(PATIENCE)
    watchdog.message_received(Heartbeat(step_s=0.0, preparing=7, preparing_s=10.0))
    assert (watchdog.look(), watchdog.unprepared) == (None, None)
    watchdog.message_received(Heartbeat(step_s=0.0, preparing=7, preparing_s=10.5))
    watchdog.message_received()
    assert (watchdog.look(), watchdog.unprepared) == ("the preparation of a request took longer than 10 s", 7)


def test_the_end_of_a_long_preparation_is_forgiven() -> None:
    watchdog = Watchdog(PATIENCE)
    watchdog.message_received(Heartbeat(step_s=0.0, preparing=7, preparing_s=10.5))
    watchdog.message_received(Heartbeat(step_s=0.0, preparing=8, preparing_s=0.5))
    assert (watchdog.look(), watchdog.unprepared) == (None, None)


def test_the_pulse_says_what_waits_longest_to_be_prepared() -> None:
    sent: list[Heartbeat] = []
    Pulse(sent.append, lambda: (7, 2.5), Clock()).beat()
    assert sent == [Heartbeat(step_s=0.0, preparing=7, preparing_s=2.5)]
