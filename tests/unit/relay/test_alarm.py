"""A deadline that is moved all the time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.relay.alarm import Alarm
from tests.support.manual_loop import ManualLoop


class Bench:
    """An alarm, and what it did, with the time."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.begin = self.loop.now
        self.done: list[tuple[str, float]] = []
        self.alarm = Alarm(self.loop)

    def set(self, seconds: float, name: str) -> None:
        self.alarm.set(seconds, lambda: self.done.append((name, self.loop.now - self.begin)))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_goes_off_once(bench) -> None:
    bench.set(5, "a")
    bench.loop.advance(4.9)
    assert bench.done == []

    bench.loop.advance(100)
    assert bench.done == [("a", 5)]


def test_what_is_set_later_is_done_in_place_of_what_was(bench) -> None:
    """Be it due earlier or later."""
    bench.set(5, "a")
    bench.set(9, "b")
    bench.loop.advance(100)
    bench.set(9, "c")
    bench.set(5, "d")
    bench.loop.advance(100)

    assert bench.done == [("b", 9), ("d", 105)]


def test_cleared_alarm_does_nothing(bench) -> None:
    bench.set(5, "a")
    bench.alarm.clear()
    bench.loop.advance(100)

    assert bench.done == []


def test_set_anew_behind_a_clear(bench) -> None:
    """The timer that is still there goes off for nothing, and is set again."""
    bench.set(5, "a")
    bench.alarm.clear()
    bench.loop.advance(4)
    bench.set(5, "b")
    bench.loop.advance(4.9)
    assert bench.done == []

    bench.loop.advance(0.1)
    assert bench.done == [("b", 9)]


def test_it_may_be_set_while_it_goes_off(bench) -> None:
    bench.alarm.set(5, lambda: bench.set(7, "b"))
    bench.loop.advance(100)

    assert bench.done == [("b", 12)]


def test_alarm_that_never_goes_off_sets_few_timers(bench) -> None:
    for _ in range(10_000):
        bench.set(30, "a")
        bench.loop.advance(0.01)
        bench.alarm.clear()

    assert bench.loop.timers < 10
    bench.loop.advance(100)
    assert (bench.done, bench.loop.due) == ([], [])


@given(steps=st.lists(st.tuples(st.none() | st.integers(0, 50), st.integers(0, 60)), max_size=30))
def test_it_goes_off_when_it_is_time(steps) -> None:
    """The reference keeps one deadline; None clears it."""
    bench = Bench()
    due, wanted = float("inf"), []
    for number, (seconds, passing) in enumerate([*steps, (None, 100)]):
        now = bench.loop.now - bench.begin
        if seconds is None:
            bench.alarm.clear()
            due = float("inf")
        else:
            bench.set(seconds, str(number))
            due = now + seconds
        bench.loop.advance(passing)
        if due <= now + passing:
            wanted.append((str(number), due))
            due = float("inf")

    assert bench.done == wanted
