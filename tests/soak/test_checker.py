"""The checker sees what is wrong, and nothing else. Each case is the good history with one thing changed."""

from dataclasses import replace
from typing import Any

import pytest

from tests.soak.checker import Kind, violations
from tests.soak.history import Attempt, Copy, Flag, History, Place

ANNA, BERTA, STRANGER = "anna@verified.example", "berta@verified.example", "xyz@provider.example"
ALL = (ANNA, BERTA, STRANGER)
OK, LATER, LOST, CLOSING = "250 2.0.0 OK", "451 4.3.0 later", "451 4.4.2 not confirmed", "421 4.3.2 closing"


def attempt(number: int = 1, *, reply: str | None = OK, **changes: Any) -> Attempt:
    first = Attempt("m1", number, f"digest {number}", ALL, dot_at=10 * number, reply=reply, ended_at=10 * number + 5)
    return replace(first, **changes)


def sent(recipient: str, number: int = 1) -> Copy:
    return Copy(Place.SMARTHOST, recipient, "m1", number, f"digest {number}")


def kept(recipient: str, number: int = 1) -> Copy:
    return Copy(Place.QUARANTINE, recipient, "m1", number, f"digest {number}")


def everywhere(number: int = 1) -> list[Copy]:
    """One copy for each recipient, where it belongs."""
    return [sent(ANNA, number), sent(BERTA, number), kept(STRANGER, number)]


def kinds(attempts: list[Attempt], copies: list[Copy], *flags: Flag) -> list[Kind]:
    history = History(frozenset({ANNA, BERTA}), attempts, list(flags), copies)
    return [violation.kind for violation in violations(history)]


def test_good_history() -> None:
    assert kinds([attempt()], everywhere()) == []


def test_nothing_happened() -> None:
    assert kinds([], []) == []


@pytest.mark.parametrize("lost", range(3))
def test_loss(lost) -> None:
    copies = everywhere()
    del copies[lost]

    assert kinds([attempt()], copies) == [Kind.LOSS]


def test_what_was_not_acknowledged_may_be_missing() -> None:
    assert kinds([attempt(reply=LATER), attempt(2)], everywhere(2)) == []


def test_stranger_at_the_smarthost() -> None:
    assert kinds([attempt()], [sent(ANNA), sent(BERTA), sent(STRANGER)]) == [Kind.BYPASS]


@pytest.mark.parametrize(
    ("done_at", "found"), [(9, [Kind.BYPASS]), (11, []), (None, [])], ids=["before", "after", "unknown"]
)
def test_flag_holds_from_when_the_operator_heard_of_it(done_at, found) -> None:
    """The end of data goes out at 10; a flag that is being set meanwhile may count or not."""
    assert kinds([attempt()], everywhere(), Flag(ANNA, 8, done_at)) == found
    assert kinds([attempt()], [kept(ANNA), sent(BERTA), kept(STRANGER)], Flag(ANNA, 8, done_at)) == []


def test_verified_recipient_in_quarantine() -> None:
    copies = [kept(ANNA), sent(BERTA), kept(STRANGER)]

    assert kinds([attempt()], copies) == [Kind.HELD]
    assert kinds([attempt()], copies, Flag(ANNA, 16, 17)) == [Kind.HELD]
    assert kinds([attempt()], copies, Flag(BERTA, 1, None)) == [Kind.HELD]


@pytest.mark.parametrize("number", range(3))
def test_corruption(number) -> None:
    copies = everywhere()
    copies[number] = replace(copies[number], digest="another")

    assert kinds([attempt()], copies) == [Kind.CORRUPTION]


def test_changed_on_its_way_past_the_check() -> None:
    copies = [sent(ANNA), sent(BERTA), replace(sent(STRANGER), digest="another")]

    assert kinds([attempt()], copies) == [Kind.CORRUPTION, Kind.BYPASS]


def test_message_that_nobody_sent() -> None:
    assert kinds([attempt()], [*everywhere(), replace(sent(ANNA), message="m2")]) == [Kind.CORRUPTION]


@pytest.mark.parametrize("twice", [sent(ANNA), kept(STRANGER), sent(STRANGER), kept(ANNA)])
def test_twice_out_of_one_attempt(twice) -> None:
    assert Kind.DUPLICATE in kinds([attempt()], [*everywhere(), twice])
    assert Kind.DUPLICATE in kinds([attempt(reply=None)], [*everywhere(), twice])


@pytest.mark.parametrize("heard", [None, LOST, CLOSING])
def test_once_more_after_an_answer_that_says_nothing(heard) -> None:
    assert kinds([attempt(reply=heard), attempt(2)], everywhere() + everywhere(2)) == []


@pytest.mark.parametrize("heard", [LATER, "451 4.4.1 down", "452 4.3.1 full", "554 5.7.1 spam"])
def test_at_the_smarthost_though_it_was_said_that_it_is_not(heard) -> None:
    first = [sent(ANNA)]

    assert kinds([attempt(reply=heard), attempt(2)], first + everywhere(2)) == [Kind.DUPLICATE]


def test_in_quarantine_though_it_was_said_that_it_is_not() -> None:
    """A lost store explains it where it was a 4yz, once; nothing explains it where it was a refusal."""
    first = [kept(STRANGER)]

    assert kinds([attempt(reply=LATER), attempt(2)], first + everywhere(2)) == []
    assert kinds([attempt(reply=LATER), attempt(2)], 2 * first + everywhere(2)) == [Kind.DUPLICATE]
    assert kinds([attempt(reply="554 5.7.1 spam")], first) == [Kind.DUPLICATE]


def test_end_of_data_that_never_went_out() -> None:
    unfinished = attempt(reply=None, dot_at=None)

    assert kinds([unfinished], []) == []
    assert kinds([unfinished], [sent(ANNA)]) == [Kind.DUPLICATE]
    assert kinds([unfinished], [kept(STRANGER)]) == [Kind.DUPLICATE]


@pytest.mark.parametrize("heard", [OK, None])
def test_recipient_who_was_not_accepted(heard) -> None:
    without = attempt(reply=heard, accepted=(ANNA, STRANGER))

    assert kinds([without], everywhere()) == [Kind.DUPLICATE]
    assert kinds([without], [sent(ANNA), kept(STRANGER)]) == []
