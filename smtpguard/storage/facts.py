"""What a look-up reads of an address: Core expressions that both engines compile, each into a statement of its own.

A fact is a scalar sub-select and not EXISTS: PostgreSQL may answer EXISTS by hashing a whole table, and would go on
doing so, with a plan made while the table was small.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, FromClause, func, literal_column, or_, select

from smtpguard.domain.standing import AddressFacts
from smtpguard.storage.tables import addresses, bindings, driver_time, vouchers

REMEMBERED_ROWS = 1024
_ONE: ColumnElement[int] = literal_column("1")
_NONE: ColumnElement[int] = literal_column("0")
_NOBODY: ColumnElement[str] = literal_column("''")
_ABOUT_NOBODY = (False, False, False)


def fact_columns(customer: ColumnElement[str] | None, now: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    """The facts of a row of ``addresses``, in the order that ``facts_of`` reads.

    ``customer`` is None where nobody asks about one: then there are none about a customer. It may be NULL in a row.
    """
    holding = (vouchers.c.address_id == addresses.c.id, *voucher_holds(now))
    return [
        addresses.c.first_seen.is_not(None),
        addresses.c.flag_since.is_not(None),
        _newest(*holding, vouchers.c.customer == _NOBODY),
        _newest(*holding, vouchers.c.customer != _NOBODY),
        *(() if customer is None else _customer_columns(customer, holding)),
    ]


def _customer_columns(customer: ColumnElement[str], holding: Sequence[ColumnElement[bool]]) -> list[ColumnElement[Any]]:
    bound = bindings.c.address_id == addresses.c.id
    return [
        any_row(vouchers, *holding, vouchers.c.customer == customer),
        any_row(bindings, bound, bindings.c.customer == customer),
        any_row(bindings, bound, bindings.c.customer != customer),
    ]


def voucher_holds(now: ColumnElement[Any]) -> Sequence[ColumnElement[bool]]:
    """The conditions under which a voucher holds; ``Voucher.holds`` in SQL."""
    return (vouchers.c.revoked_at.is_(None), or_(vouchers.c.valid_until.is_(None), vouchers.c.valid_until > now))


@lru_cache(REMEMBERED_ROWS)
def facts_of(row: tuple[Any, ...]) -> AddressFacts:
    """Read the facts out of a row of ``fact_columns``, as the driver gives it; most rows are like one before."""
    on_record, flagged, address_wide, for_customers, *about_customer = row
    since = max((at for at in (address_wide, for_customers) if at is not None), default=None)
    vouched = (address_wide is not None, for_customers is not None)
    facts: list[Any] = [
        *map(bool, (on_record, flagged, *vouched, *(about_customer or _ABOUT_NOBODY))),
        driver_time(since),
    ]
    return AddressFacts(*facts)


def _newest(*conditions: ColumnElement[bool]) -> ColumnElement[Any]:
    """When the newest of these vouchers was given; NULL where there is none."""
    newest = select(func.max(vouchers.c.verified_at)).where(*conditions).correlate_except(vouchers)
    return newest.scalar_subquery()


def any_row(table: FromClause, *conditions: ColumnElement[bool]) -> ColumnElement[Any]:
    """Whether a table has a row like this; see above."""
    row = select(_ONE).select_from(table).where(*conditions).limit(_ONE).offset(_NONE).correlate_except(table)
    return row.scalar_subquery().is_not(None)
