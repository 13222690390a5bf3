"""When a session has been idle for too long, and when it has grown old."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.smtp.clock import Clock
from tests.support.manual_loop import ManualLoop

IDLE = 300.0


class Bench:
    """A clock that writes down what it calls, and when: a silence ends the session, as it does in the guard."""

    def __init__(self, *, when_old: Callable[["Bench"], None] = lambda _: None) -> None:
        self.loop = ManualLoop()
        self.begin = self.loop.now
        self.called: list[tuple[str, float]] = []
        self._when_old = when_old
        self.clock = Clock(self.loop, idle_seconds=IDLE, on_idle=self._on_idle, on_old=self._on_old)

    def _on_idle(self) -> None:
        self.called.append(("idle", self.loop.now - self.begin))
        self.clock.stop()

    def _on_old(self) -> None:
        self.called.append(("old", self.loop.now - self.begin))
        self._when_old(self)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_new_clock_calls_nothing(bench) -> None:
    bench.loop.advance(1e9)

    assert bench.called == []


def test_silence_is_too_long_once(bench) -> None:
    bench.clock.reset()
    bench.loop.advance(IDLE - 1)
    assert bench.called == []

    bench.loop.advance(1e9)
    assert bench.called == [("idle", IDLE)]


def test_reset_begins_another_silence(bench) -> None:
    for _ in range(3):
        bench.clock.reset()
        bench.loop.advance(200)
    bench.loop.advance(1e9)

    assert bench.called == [("idle", 400 + IDLE)]


def test_silence_may_be_shorter_than_usual_once(bench) -> None:
    """As for the header of a proxy; a timer that was set for a longer one comes in time all the same."""
    bench.clock.reset()
    bench.clock.reset(10)
    bench.loop.advance(9)
    bench.clock.reset()
    bench.loop.advance(IDLE - 1)
    assert bench.called == []

    bench.clock.reset(10)
    bench.loop.advance(10)
    assert bench.called == [("idle", 9 + IDLE - 1 + 10)]


def test_stopped_clock_lets_a_silence_last(bench) -> None:
    bench.clock.reset()
    bench.clock.stop()
    bench.loop.advance(1e6)
    assert bench.called == []

    bench.clock.reset()
    bench.loop.advance(IDLE)
    assert bench.called == [("idle", 1e6 + IDLE)]


def test_age_is_told_once_whatever_the_silence(bench) -> None:
    bench.clock.grow_old_in(1000)
    bench.clock.reset()
    bench.clock.stop()
    bench.loop.advance(1e6)

    assert bench.called == [("old", 1000)]


def test_old_session_may_be_given_more_time() -> None:
    bench = Bench(when_old=lambda bench: len(bench.called) < 3 and bench.clock.grow_old_in(50))
    bench.clock.grow_old_in(100)
    bench.loop.advance(1e6)

    assert bench.called == [("old", 100), ("old", 150), ("old", 200)]


def test_idle_and_old_at_the_same_moment(bench) -> None:
    bench.clock.grow_old_in(IDLE)
    bench.clock.reset()
    bench.loop.advance(1e6)

    assert bench.called == [("idle", IDLE), ("old", IDLE)]


def test_cancelled_clock_calls_nothing_any_more(bench) -> None:
    """Not even where somebody resets it who does not know: a session that is gone while its message is under way."""
    bench.clock.grow_old_in(1000)
    bench.clock.reset()
    bench.clock.cancel()
    bench.clock.stop()
    bench.clock.reset()
    bench.clock.reset(1)

    assert bench.loop.due == []
    bench.loop.advance(1e6)
    assert bench.called == []


def test_commands_set_no_timers(bench) -> None:
    for _ in range(10_000):
        bench.clock.reset()
        bench.loop.advance(0.1)

    assert bench.loop.timers < 10


@given(steps=st.lists(st.tuples(st.sampled_from(["reset", "short", "stop", "old"]), st.integers(0, 400)), max_size=30))
def test_clock_calls_when_it_is_time(steps) -> None:
    """The reference keeps two deadlines, and looks at each moment."""
    bench = Bench()
    deadlines = {"idle": float("inf"), "old": float("inf")}
    wanted: list[tuple[str, float]] = []
    for act, seconds in [*steps, ("wait", 10_000)]:
        now = bench.loop.now - bench.begin
        match act:
            case "reset":
                bench.clock.reset()
                deadlines["idle"] = now + IDLE
            case "short":
                bench.clock.reset(10)
                deadlines["idle"] = now + 10
            case "stop":
                bench.clock.stop()
                deadlines["idle"] = float("inf")
            case "old":
                bench.clock.grow_old_in(500)
                deadlines["old"] = now + 500
        bench.loop.advance(seconds)
        for at, name in sorted((at, name) for name, at in deadlines.items() if at <= now + seconds):
            wanted.append((name, at))
            deadlines[name] = float("inf")

    assert bench.called == wanted
