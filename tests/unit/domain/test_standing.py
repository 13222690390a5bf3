"""What the address book says of an address."""

from datetime import UTC, datetime, timedelta

import pytest

from smtpguard.domain.standing import (
    MAX_CUSTOMER_CHARACTERS,
    NOTHING_ON_RECORD,
    AddressFacts,
    AddressRecord,
    Binding,
    Flag,
    Standing,
    Voucher,
    is_customer_reference,
)

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


def voucher(*, valid_until: datetime | None = None, revoked_at: datetime | None = None) -> Voucher:
    return Voucher(
        customer=None,
        method="confirmation",
        verified_at=NOW - timedelta(days=30),
        by="anna",
        valid_until=valid_until,
        revoked_at=revoked_at,
    )


@pytest.mark.parametrize(
    ("valid_until", "revoked_at", "holds"),
    [
        (None, None, True),
        (NOW + INSTANT, None, True),
        (NOW, None, False),
        (NOW - INSTANT, None, False),
        (None, NOW - INSTANT, False),
        (None, NOW, False),
        (None, NOW + INSTANT, False),
        (NOW + INSTANT, NOW - INSTANT, False),
    ],
)
def test_voucher_holds(valid_until, revoked_at, holds) -> None:
    """Until the moment it is valid until, which is no longer within; a revoked one never again."""
    assert holds is voucher(valid_until=valid_until, revoked_at=revoked_at).holds(NOW)


def test_validity_is_an_instant_in_any_time_zone() -> None:
    local = datetime.fromisoformat("2026-05-04T14:00:00+02:00")

    assert not voucher(valid_until=local).holds(NOW)
    assert voucher(valid_until=local + INSTANT).holds(NOW)


FLAG = Flag(reason="bounced", since=NOW, by="anna")
BINDING = Binding(customer="c-1", first_seen=NOW, last_seen=NOW)
HOLDS, EXPIRED, REVOKED = voucher(), voucher(valid_until=NOW), voucher(revoked_at=NOW)


@pytest.mark.parametrize(
    ("flag", "bindings", "vouchers", "seen", "standing"),
    [
        (None, (), (), None, Standing.UNKNOWN),
        (None, (BINDING,), (), None, Standing.UNKNOWN),
        (None, (), (), NOW, Standing.UNVERIFIED),
        (None, (BINDING,), (EXPIRED, REVOKED), NOW, Standing.UNVERIFIED),
        (None, (), (HOLDS,), NOW, Standing.VERIFIED),
        (None, (BINDING,), (REVOKED, EXPIRED, HOLDS), NOW, Standing.VERIFIED),
        (FLAG, (), (), NOW, Standing.FLAGGED),
        (FLAG, (BINDING,), (HOLDS,), NOW, Standing.FLAGGED),
    ],
)
def test_standing_of_a_record(flag, bindings, vouchers, seen, standing) -> None:
    """A flag wins over every voucher; a binding alone makes no record."""
    record = AddressRecord(
        address="u@x",
        lookup_key="u@x",
        flag=flag,
        bindings=bindings,
        vouchers=vouchers,
        first_seen=seen,
        last_seen=seen,
    )

    assert standing is record.standing(NOW)


def test_nothing_on_record() -> None:
    assert not any(getattr(NOTHING_ON_RECORD, name) for name in AddressFacts.__dataclass_fields__)


@pytest.mark.parametrize(
    ("address_wide", "own", "rests"),
    [(False, False, False), (False, True, False), (True, False, True), (True, True, False)],
)
def test_rests_on_an_address_wide_voucher(address_wide, own, rests) -> None:
    facts = AddressFacts(
        on_record=True,
        flagged=False,
        vouched_address_wide=address_wide,
        vouched_for_any_customer=own,
        vouched_for_customer=own,
        bound_to_customer=own,
        bound_to_others=True,
    )

    assert rests is facts.rests_on_address_wide_voucher


@pytest.mark.parametrize("text", ["1", "c-1", "Kunde 4711", "a/b:c;d=~!", "x" * MAX_CUSTOMER_CHARACTERS])
def test_customer_reference(text) -> None:
    assert is_customer_reference(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", " a", "a ", "a  b", "a\tb", "a\n", "a\0", "é", "1\u00a02", "١", "x" * (MAX_CUSTOMER_CHARACTERS + 1)],
    ids=ascii,
)
def test_no_customer_reference(text) -> None:
    assert not is_customer_reference(text)
