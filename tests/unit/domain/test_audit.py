"""The audit log: each act is bound to the one before."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.domain.audit import FIRST_HASH, Act, ActKind, RecordedAct, act_hash

AT = datetime(2026, 5, 4, 12, 30, 15, 250, tzinfo=UTC)
ACT = Act(at=AT, actor="anna", kind=ActKind.ADDRESS_FLAG, subject="jos\u00e9@x", why='she said "stop"')


def test_hash_of_the_first_act() -> None:
    """A known answer: whoever holds the log can check it without this program."""
    text = (
        r'["0000000000000000000000000000000000000000000000000000000000000000", "2026-05-04T12:30:15.000250+00:00", '
        r'"anna", "address-flag", "jos\u00e9@x", "she said \"stop\""]'
    )

    assert hashlib.sha256(text.encode()).hexdigest() == act_hash(FIRST_HASH, ACT)
    assert act_hash(FIRST_HASH, ACT) == "964bd5342d441e9825acfc71b475edf5b6c7ab1a39b6ab141cfd75c2fb4347ed"


@pytest.mark.parametrize(
    "change",
    [
        {"at": AT + timedelta(microseconds=1)},
        {"at": AT + timedelta(days=1)},
        {"actor": "Anna"},
        {"actor": "anna "},
        {"kind": ActKind.ADDRESS_UNFLAG},
        {"subject": "jose\u0301@x"},
        {"why": ""},
        {"actor": "", "subject": "annajos\u00e9@x"},
        {"actor": 'anna", "address-flag', "subject": ""},
    ],
    ids=str,
)
def test_any_change_changes_the_hash(change) -> None:
    assert act_hash(FIRST_HASH, ACT) != act_hash(FIRST_HASH, replace(ACT, **change))


def test_a_change_of_the_act_before_changes_the_hash() -> None:
    before = replace(ACT, why="another")

    assert act_hash(act_hash(FIRST_HASH, ACT), ACT) != act_hash(act_hash(FIRST_HASH, before), ACT)


def test_the_same_instant_has_the_same_hash() -> None:
    """PostgreSQL gives times back in the zone of the session."""
    elsewhere = replace(ACT, at=datetime.fromisoformat("2026-05-04T14:30:15.000250+02:00"))

    assert act_hash(FIRST_HASH, ACT) == act_hash(FIRST_HASH, elsewhere)


ACTS = st.builds(
    Act,
    at=st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1)),  # noqa: DTZ001 - hypothesis wants it naive
    actor=st.text(max_size=3),
    kind=st.sampled_from(ActKind),
    subject=st.text(max_size=3),
    why=st.text(max_size=3),
)


@given(one=ACTS, other=ACTS)
def test_only_equal_acts_share_a_hash(one, other) -> None:
    assert (one == other) == (act_hash(FIRST_HASH, one) == act_hash(FIRST_HASH, other))


def test_recorded_act_follows_the_one_before() -> None:
    """Only where the link and its own hash both hold."""
    other = "f" * 64
    first = RecordedAct(1, ACT, FIRST_HASH, act_hash(FIRST_HASH, ACT))

    assert first.follows(FIRST_HASH)
    assert not first.follows(other)
    assert not replace(first, previous_hash=other).follows(FIRST_HASH)
    assert not replace(first, previous_hash=other).follows(other)
    assert not replace(first, hash=other).follows(FIRST_HASH)
    assert not replace(first, act=replace(ACT, why="")).follows(FIRST_HASH)
