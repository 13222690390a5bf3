"""What the workers share: rates that count for all of them together."""

import fcntl
import os
from collections.abc import Callable, Iterator

import pytest

from smtpguard.domain.application import Application
from smtpguard.domain.policy import Policy
from smtpguard.workers import shared
from smtpguard.workers.shared import LockedFile, SharedRates, new_rates_file


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new_file() -> Iterator[Callable[[], LockedFile]]:
    """Opens the one file of the rates as another worker does."""
    opened: list[LockedFile] = []
    with new_rates_file() as file:

        def open_it() -> LockedFile:
            opened.append(LockedFile(file.fileno()))
            return opened[-1]

        yield open_it
        for each in opened:
            os.close(each.descriptor)


@pytest.fixture
def workers(clock, new_file) -> tuple[SharedRates, SharedRates]:
    return SharedRates(clock, new_file()), SharedRates(clock, new_file())


def application(limit: int, name: str = "crm") -> Application:
    return Application(name, (), Policy(), max_messages_per_minute=limit)


def admitted(rates: SharedRates, limit: int, *, tries: int, name: str = "crm") -> int:
    return sum(rates.admits(application(limit, name)) for _ in range(tries))


def test_limit_holds_for_all_workers_together(workers) -> None:
    """Whichever of them is asked."""
    one, other = workers
    turns = [rates.admits(application(7)) for _ in range(10) for rates in (one, other)]

    assert turns == [True] * 7 + [False] * 13


def test_time_fills_it_again_for_all(workers, clock) -> None:
    one, other = workers
    assert admitted(one, 6, tries=9) == 6

    clock.now += 20

    assert (admitted(other, 6, tries=9), admitted(one, 6, tries=9)) == (2, 0)


def test_each_application_has_its_own(workers) -> None:
    one, other = workers
    assert admitted(one, 2, tries=3) == 2

    assert admitted(other, 2, tries=3, name="billing") == 2
    assert admitted(other, 2, tries=3) == 0


def test_without_a_limit_nothing_is_counted(workers) -> None:
    one, other = workers
    assert admitted(one, 0, tries=50) == 50

    assert admitted(other, 3, tries=9) == 3


def test_worker_that_is_started_again_finds_what_was_counted(workers, clock, new_file) -> None:
    assert admitted(workers[0], 4, tries=4) == 4

    assert not SharedRates(clock, new_file()).admits(application(4))


def test_limit_that_is_lowered_holds_in_all(workers) -> None:
    one, other = workers
    assert admitted(one, 10, tries=1) == 1

    assert (admitted(other, 2, tries=1), admitted(one, 2, tries=9)) == (1, 1)


def test_applications_that_share_a_place_do_not_share_a_rate(workers, monkeypatch) -> None:
    """They stand beside each other, and what is full gives way."""
    monkeypatch.setattr(shared, "_RECORDS", 3)
    one, other = workers
    names = ["crm", "billing", "shop"]

    assert [admitted(one, 1, tries=2, name=name) for name in names] == [1, 1, 1]
    assert [admitted(other, 1, tries=2, name=name) for name in names] == [0, 0, 0]
    assert admitted(one, 5, tries=9, name="one-too-many") == 5


def test_lock_keeps_the_others_out(new_file) -> None:
    one, other = new_file(), new_file()
    with one.locked(), pytest.raises(BlockingIOError):
        fcntl.flock(other.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with other.locked():
        pass
