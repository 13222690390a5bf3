"""What a look-up reads of an address: Core expressions that both engines compile, each into its own statement.

A fact is a scalar sub-select and not EXISTS: PostgreSQL may answer EXISTS by hashing a whole table, and would go on
doing so, with a plan made while the table was small.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, literal_column, or_, select

from smtpguard.domain.standing import NOTHING_ON_RECORD, AddressFacts
from smtpguard.storage.tables import addresses, bindings, vouchers

_ONE: ColumnElement[int] = literal_column("1")
_NOBODY: ColumnElement[str] = literal_column("''")


def fact_columns(
    lookup_key: ColumnElement[str], customer: ColumnElement[str], now: ColumnElement[Any]
) -> list[ColumnElement[Any]]:
    """The columns of one look-up, in the order that ``facts_of`` reads; ``customer`` is '' where none is named."""
    flag = select(addresses.c.flag_since.is_not(None)).where(addresses.c.lookup_key == lookup_key)
    holding = (vouchers.c.lookup_key == lookup_key, *voucher_holds(now))
    bound = bindings.c.lookup_key == lookup_key
    return [
        flag.correlate_except(addresses).scalar_subquery(),
        _any_row(vouchers, *holding, vouchers.c.customer == _NOBODY),
        _any_row(vouchers, *holding, vouchers.c.customer != _NOBODY),
        _any_row(vouchers, *holding, vouchers.c.customer == customer, vouchers.c.customer != _NOBODY),
        _any_row(bindings, bound, bindings.c.customer == customer),
        _any_row(bindings, bound, bindings.c.customer != customer),
    ]


def voucher_holds(now: ColumnElement[Any]) -> Sequence[ColumnElement[bool]]:
    """The conditions under which a voucher holds; ``Voucher.holds`` in SQL."""
    return (vouchers.c.revoked_at.is_(None), or_(vouchers.c.valid_until.is_(None), vouchers.c.valid_until > now))


def facts_of(row: Sequence[Any]) -> AddressFacts:
    """Read the facts out of a row of ``fact_columns``; ``flagged`` is NULL where there is no address."""
    flagged, address_wide, any_customer, for_customer, bound, bound_to_others = row
    if flagged is None and not (bound or bound_to_others):
        return NOTHING_ON_RECORD
    return AddressFacts(
        on_record=flagged is not None,
        flagged=bool(flagged),
        vouched_address_wide=bool(address_wide),
        vouched_for_any_customer=bool(any_customer),
        vouched_for_customer=bool(for_customer),
        bound_to_customer=bool(bound),
        bound_to_others=bool(bound_to_others),
    )


def _any_row(table: FromClause, *conditions: ColumnElement[bool]) -> ColumnElement[Any]:
    row = select(_ONE).select_from(table).where(*conditions).limit(_ONE).correlate_except(table)
    return row.scalar_subquery().is_not(None)
