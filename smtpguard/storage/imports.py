"""One chunk of an import: staged in a temporary table, and taken over from there in a few statements.

The same chunk may come again and again. What an operator or a recipient decided stays: an import revokes nothing,
takes no flag off, and does not renew what was revoked.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Boolean, Column, Connection, MetaData, Table, Text, bindparam, literal, select, update

from smtpguard.domain.import_row import ImportRow
from smtpguard.domain.standing import Standing
from smtpguard.storage.dialects import expect_much, fill, insert_into, storing
from smtpguard.storage.sightings import upsert_addresses, upsert_bindings
from smtpguard.storage.tables import Key, Number, UtcDateTime, Words, addresses, bindings, vouchers

IMPORT_METHOD = "import"

_staged = Table(
    "staged_rows",
    MetaData(),
    Column("address_id", Number),  # 0: not known yet
    Column("lookup_key", Key),
    Column("address", Text),
    Column("is_first", Boolean),  # of its lookup key in the chunk
    Column("customer", Key),
    Column("is_binding", Boolean),  # the first of its lookup key and customer
    Column("verified_at", UtcDateTime),  # NULL: not verified
    Column("source", Key),
    prefixes=["TEMPORARY"],
)
_by_lookup_key = attrgetter("mailbox.lookup_key")
# A join would let PostgreSQL read the whole address book for every chunk.
_address_id = select(addresses.c.id).where(addresses.c.lookup_key == _staged.c.lookup_key).scalar_subquery()


def import_chunk(
    connection: Connection,
    rows: Sequence[ImportRow],
    *,
    now: datetime,
    by: str,
    valid_until: datetime | None,
    on_staged: Callable[[], None],
) -> None:
    """Take over these rows; ``on_staged``: see ``AddressBook.import_rows``."""
    expect_much(connection)
    _staged.create(connection)
    fill(connection, _staged, _values(rows, now, stored=storing(connection.dialect, UtcDateTime())))
    on_staged()
    _see_addresses(connection, now)
    _look_up_addresses(connection)
    _see_bindings(connection, now)
    _add_vouchers(connection, by, valid_until)
    _staged.drop(connection)
    _flag(connection, rows, now=now, by=by)


def _values(rows: Sequence[ImportRow], now: datetime, *, stored: Callable[[Any], Any]) -> Iterator[tuple[Any, ...]]:
    """In the order of their lookup keys, so that an engine finds each where it has found the one before."""
    stored_now = stored(now)
    last_key: str | None = None
    bound: set[str | None] = set()
    for mailbox, standing, customer, at, source, _ in sorted(rows, key=_by_lookup_key):
        lookup_key = mailbox.lookup_key
        is_first = is_binding = 0  # not False, over which the driver of SQLite takes its time
        if lookup_key != last_key:
            last_key, bound, is_first = lookup_key, {None}, 1
        if customer not in bound:
            is_binding = 1
            bound.add(customer)
        verified_at = None
        if standing is Standing.VERIFIED:
            verified_at = stored(at) if at else stored_now
        yield 0, lookup_key, mailbox.text, is_first, customer or "", is_binding, verified_at, source


def _see_addresses(connection: Connection, now: datetime) -> None:
    at = literal(now, UtcDateTime)
    staged = select(_staged.c.lookup_key, _staged.c.address, at, at).where(_staged.c.is_first)
    columns = [addresses.c.lookup_key, addresses.c.address, addresses.c.first_seen, addresses.c.last_seen]
    connection.execute(upsert_addresses(connection.dialect).from_select(columns, staged.order_by(_staged.c.lookup_key)))


def _look_up_addresses(connection: Connection) -> None:
    """Once, for all that refers to them."""
    connection.execute(update(_staged).values(address_id=_address_id))


def _see_bindings(connection: Connection, now: datetime) -> None:
    at = literal(now, UtcDateTime)
    pair = (_staged.c.address_id, _staged.c.customer)
    staged = select(*pair, at, at).where(_staged.c.is_binding).order_by(*pair)
    columns = [bindings.c.address_id, bindings.c.customer, bindings.c.first_seen, bindings.c.last_seen]
    connection.execute(upsert_bindings(connection.dialect).from_select(columns, staged))


def _add_vouchers(connection: Connection, by: str, valid_until: datetime | None) -> None:
    values = {
        vouchers.c.address_id: _staged.c.address_id,
        vouchers.c.customer: _staged.c.customer,
        vouchers.c.method: literal(IMPORT_METHOD),
        vouchers.c.verified_at: _staged.c.verified_at,
        vouchers.c.verified_by: literal(by, Words),
        vouchers.c.evidence: _staged.c.source,
        vouchers.c.valid_until: literal(valid_until, UtcDateTime),
        vouchers.c.import_source: _staged.c.source,
    }
    verified = select(*values.values()).where(_staged.c.verified_at.is_not(None))
    once = [vouchers.c.address_id, vouchers.c.customer, vouchers.c.import_source]
    insert = insert_into(connection.dialect, vouchers).on_conflict_do_nothing(index_elements=once)
    connection.execute(insert.from_select(list(values), verified.order_by(_staged.c.address_id, _staged.c.customer)))


def _flag(connection: Connection, rows: Sequence[ImportRow], *, now: datetime, by: str) -> None:
    """Flag where no flag stands; the first reason that a chunk gives is kept."""
    flagged = [
        {"key": row.mailbox.lookup_key, "reason": row.reason} for row in rows if row.standing is Standing.FLAGGED
    ]
    if flagged:
        unflagged = update(addresses).where(
            addresses.c.lookup_key == bindparam("key"), addresses.c.flag_since.is_(None)
        )
        flag = unflagged.values(flag_reason=bindparam("reason"), flag_since=now, flag_by=by)
        connection.execute(flag, flagged)
