"""All that is on record of an address, put together for people to read."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    exists,
    false,
    literal,
    not_,
    select,
    true,
)

from smtpguard.domain.standing import AddressRecord, Binding, Flag, Standing, Voucher
from smtpguard.storage.facts import voucher_holds
from smtpguard.storage.tables import UtcDateTime, addresses, bindings, vouchers


def read_record(connection: Connection, lookup_key: str) -> AddressRecord:
    """Read what is on record of one address, which may be nothing."""
    row = connection.execute(select(addresses).where(addresses.c.lookup_key == lookup_key)).first()
    [record] = _records(connection, {lookup_key: row})
    return record


def read_records(
    connection: Connection, *, after: str | None, rows: int, standing: Standing | None, now: datetime
) -> list[AddressRecord]:
    """Read the addresses of a standing that come after a lookup key, in the order of their keys."""
    query = select(addresses).where(_has_standing(standing, now), addresses.c.lookup_key > (after or ""))
    page = connection.execute(query.order_by(addresses.c.lookup_key).limit(rows)).all()
    return _records(connection, {row.lookup_key: row for row in page})


def _has_standing(standing: Standing | None, now: datetime) -> ColumnElement[bool]:
    """``AddressRecord.standing`` in SQL."""
    holding = voucher_holds(literal(now, UtcDateTime))
    vouched = exists().where(vouchers.c.lookup_key == addresses.c.lookup_key, *holding)
    match standing:
        case None:
            return true()
        case Standing.UNKNOWN:
            return false()
        case Standing.UNVERIFIED:
            return and_(addresses.c.flag_since.is_(None), not_(vouched))
        case Standing.VERIFIED:
            return and_(addresses.c.flag_since.is_(None), vouched)
        case Standing.FLAGGED:
            return addresses.c.flag_since.is_not(None)


def _records(connection: Connection, rows: Mapping[str, Row[Any] | None]) -> list[AddressRecord]:
    bound = _rows_by_key(connection, bindings, rows.keys())
    vouched = _rows_by_key(connection, vouchers, rows.keys())
    return [
        AddressRecord(
            address=row.address if row else lookup_key,
            lookup_key=lookup_key,
            flag=_flag(row) if row else None,
            bindings=tuple(_binding(item) for item in bound[lookup_key]),
            vouchers=tuple(_voucher(item) for item in vouched[lookup_key]),
            first_seen=row.first_seen if row else None,
            last_seen=row.last_seen if row else None,
        )
        for lookup_key, row in rows.items()
    ]


def _rows_by_key(
    connection: Connection, table: Table, lookup_keys: Collection[str]
) -> defaultdict[str, list[Row[Any]]]:
    found: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    query = select(table).where(table.c.lookup_key.in_(lookup_keys)).order_by(*table.primary_key)
    for row in connection.execute(query):
        found[row.lookup_key].append(row)
    return found


def _flag(row: Row[Any]) -> Flag | None:
    return Flag(row.flag_reason, row.flag_since, row.flag_by) if row.flag_since else None


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
