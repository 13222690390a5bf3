"""How many messages an application may begin."""

import pytest

from smtpguard.domain.application import Application
from smtpguard.domain.policy import Policy
from smtpguard.service.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock) -> Rates:
    return Rates(clock)


def application(limit: int, name: str = "crm") -> Application:
    return Application(name, (), Policy(), max_messages_per_minute=limit)


def admitted(rates: Rates, limit: int, *, tries: int, name: str = "crm") -> int:
    return sum(rates.admits(application(limit, name)) for _ in range(tries))


def test_a_minutes_worth_at_once(rates) -> None:
    assert admitted(rates, 7, tries=20) == 7


def test_then_one_at_a_time(rates, clock) -> None:
    admitted(rates, 6, tries=20)

    for _ in range(3):
        clock.now += 10
        assert admitted(rates, 6, tries=20) == 1


def test_not_a_moment_too_soon(rates, clock) -> None:
    admitted(rates, 6, tries=6)
    clock.now += 9.99

    assert admitted(rates, 6, tries=1) == 0


def test_refused_messages_count_for_nothing(rates, clock) -> None:
    """However hard an application tries, it gets its rate."""
    admitted(rates, 6, tries=6)
    count = 0
    for _ in range(600):
        clock.now += 0.125
        count += admitted(rates, 6, tries=1)

    assert count == 7  # in 75 seconds


def test_silence_saves_up_a_minutes_worth_at_most(rates, clock) -> None:
    admitted(rates, 6, tries=6)
    clock.now += 86_400

    assert admitted(rates, 6, tries=20) == 6


def test_applications_do_not_share_a_rate(rates) -> None:
    assert admitted(rates, 2, tries=5, name="crm") == 2
    assert admitted(rates, 3, tries=5, name="billing") == 3


def test_no_limit(rates) -> None:
    assert admitted(rates, 0, tries=10_000) == 10_000


def test_limit_that_was_lowered(rates) -> None:
    """Settings that were read again hold at once: nothing saved up before exceeds the new limit."""
    admitted(rates, 600, tries=1)

    assert admitted(rates, 2, tries=5) == 2


def test_limit_that_was_raised(rates, clock) -> None:
    """What was used up stays used up; it fills at the new rate."""
    admitted(rates, 2, tries=2)

    assert admitted(rates, 60, tries=5) == 0
    clock.now += 2
    assert admitted(rates, 60, tries=5) == 2
