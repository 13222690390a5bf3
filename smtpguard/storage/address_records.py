"""All that is on record of an address, put together for people to read."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    exists,
    literal,
    not_,
    select,
)

from smtpguard.domain.standing import AddressRecord, Binding, Flag, Standing, Voucher
from smtpguard.storage.facts import voucher_holds
from smtpguard.storage.tables import UtcDateTime, addresses, bindings, vouchers


def read_record(connection: Connection, lookup_key: str) -> AddressRecord:
    """Read what is on record of one address, which may be nothing."""
    rows = connection.execute(select(addresses).where(addresses.c.lookup_key == lookup_key)).all()
    nothing = AddressRecord(
        lookup_key, lookup_key, flag=None, bindings=(), vouchers=(), first_seen=None, last_seen=None
    )
    return next(iter(_records(connection, rows)), nothing)


def read_records(
    connection: Connection, *, after: str | None, rows: int, standing: Standing | None, now: datetime
) -> list[AddressRecord]:
    """Read the addresses of a standing that come after a lookup key, in the order of their keys."""
    query = select(addresses).where(_has_standing(standing, now), addresses.c.lookup_key > (after or ""))
    page = connection.execute(query.order_by(addresses.c.lookup_key).limit(rows)).all()
    return _records(connection, page)


def _has_standing(standing: Standing | None, now: datetime) -> ColumnElement[bool]:
    """``AddressRecord.standing`` in SQL."""
    holding = voucher_holds(literal(now, UtcDateTime))
    vouched = exists().where(vouchers.c.address_id == addresses.c.id, *holding)
    on_record, not_flagged = addresses.c.first_seen.is_not(None), addresses.c.flag_since.is_(None)
    match standing:
        case None:
            return on_record
        case Standing.UNKNOWN:
            return not_(on_record)
        case Standing.UNVERIFIED:
            return and_(on_record, not_flagged, not_(vouched))
        case Standing.VERIFIED:
            return and_(on_record, not_flagged, vouched)
        case Standing.FLAGGED:
            return addresses.c.flag_since.is_not(None)


def _records(connection: Connection, rows: Sequence[Row[Any]]) -> list[AddressRecord]:
    numbers = [row.id for row in rows]
    bound, vouched = _rows_of(connection, bindings, numbers), _rows_of(connection, vouchers, numbers)
    return [
        AddressRecord(
            address=row.address,
            lookup_key=row.lookup_key,
            flag=Flag(row.flag_reason, row.flag_since, row.flag_by) if row.flag_since else None,
            bindings=tuple(_binding(binding) for binding in bound[row.id]),
            vouchers=tuple(_voucher(voucher) for voucher in vouched[row.id]),
            first_seen=row.first_seen,
            last_seen=row.last_seen,
        )
        for row in rows
    ]


def _rows_of(connection: Connection, table: Table, numbers: Sequence[int]) -> defaultdict[int, list[Row[Any]]]:
    found: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    query = select(table).where(table.c.address_id.in_(numbers)).order_by(*table.primary_key)
    for row in connection.execute(query):
        found[row.address_id].append(row)
    return found


def _binding(row: Row[Any]) -> Binding:
    return Binding(row.customer, row.first_seen, row.last_seen)


def _voucher(row: Row[Any]) -> Voucher:
    return Voucher(
        customer=row.customer or None,
        method=row.method,
        verified_at=row.verified_at,
        by=row.verified_by,
        evidence=row.evidence,
        valid_until=row.valid_until,
        revoked_at=row.revoked_at,
    )
