"""First and last seen: the upserts that put addresses and bindings on record, for all who write.

Rows go in by the order of their keys, so that two writers at once do not deadlock.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, ColumnElement, Connection, Dialect, bindparam, case, func, select, update

from smtpguard.domain.mailbox import Mailbox
from smtpguard.storage.dialects import SQLITE, insert_into
from smtpguard.storage.driver_statement import Cursor, DriverStatement
from smtpguard.storage.tables import UtcDateTime, addresses, bindings

if TYPE_CHECKING:
    from smtpguard.storage.dialects import Insert

Sightings = Mapping[tuple[str, str], datetime]
"""When a lookup key was last seen with a customer."""

_AT = bindparam("at", type_=UtcDateTime)
_ADDRESS_ID = select(addresses.c.id).where(addresses.c.lookup_key == bindparam("key")).scalar_subquery()
_SEEN_AGAIN = (
    update(bindings)
    .where(bindings.c.address_id == _ADDRESS_ID, bindings.c.customer == bindparam("to"))
    .values(last_seen=case((bindings.c.last_seen < _AT, _AT), else_=bindings.c.last_seen))
)


def see_address(connection: Connection, mailbox: Mailbox, at: datetime) -> None:
    """Put an address on record; its text stays as it was first seen."""
    seen = {"lookup_key": mailbox.lookup_key, "address": mailbox.text, "first_seen": at, "last_seen": at}
    connection.execute(upsert_addresses(connection.dialect), seen)


def know_address(connection: Connection, mailbox: Mailbox) -> None:
    """Give an address a number, if it has none; it is not put on record by this."""
    known = insert_into(connection.dialect, addresses).on_conflict_do_nothing(index_elements=[addresses.c.lookup_key])
    connection.execute(known, {"lookup_key": mailbox.lookup_key, "address": mailbox.text})


def see_bindings(connection: Connection, seen: Sightings) -> None:
    """Bind (lookup key, customer) pairs; an address that is not on record is not put there by this."""
    _binding_upserts(connection.dialect).see(connection.connection.cursor(), seen)


class BindingUpserts:
    """``see_bindings`` as the driver of one engine takes it."""

    def __init__(self, dialect: Dialect) -> None:
        known = insert_into(dialect, addresses).on_conflict_do_nothing(index_elements=[addresses.c.lookup_key])
        values = {"address_id": _ADDRESS_ID, "customer": bindparam("to"), "first_seen": _AT, "last_seen": _AT}
        self._see_again = DriverStatement(_SEEN_AGAIN, dialect)
        self._know = DriverStatement(known.values(lookup_key=bindparam("key"), address=bindparam("key")), dialect)
        self._bind = DriverStatement(upsert_bindings(dialect).values(values), dialect)

    def see(self, cursor: Cursor, seen: Sightings) -> None:
        """Execute them; most pairs were seen before."""
        if not seen:
            return
        rows = [{"key": key, "to": customer, "at": at} for (key, customer), at in sorted(seen.items())]
        if self._see_again.execute(cursor, rows) < len(rows):
            self._know.execute(cursor, rows)
            self._bind.execute(cursor, rows)


def upsert_addresses(dialect: Dialect) -> "Insert":
    """An INSERT that keeps the text and ``first_seen`` of an address on record, and moves ``last_seen`` forwards."""
    insert = insert_into(dialect, addresses)
    first = addresses.c.first_seen.is_(None)
    values = {
        "address": case((first, insert.excluded.address), else_=addresses.c.address),
        "first_seen": func.coalesce(addresses.c.first_seen, insert.excluded.first_seen),
        "last_seen": case((first, insert.excluded.last_seen), else_=_later(addresses.c.last_seen, insert)),
    }
    return insert.on_conflict_do_update(index_elements=[addresses.c.lookup_key], set_=values)


def upsert_bindings(dialect: Dialect) -> "Insert":
    """An INSERT that moves ``last_seen`` of a binding forwards."""
    insert = insert_into(dialect, bindings)
    values = {"last_seen": _later(bindings.c.last_seen, insert)}
    return insert.on_conflict_do_update(index_elements=list(bindings.primary_key), set_=values)


def _later(last_seen: Column[Any], insert: "Insert") -> ColumnElement[Any]:
    return case((insert.excluded.last_seen > last_seen, insert.excluded.last_seen), else_=last_seen)


SQLITE_BINDINGS = BindingUpserts(SQLITE)
_BINDINGS = {SQLITE.name: SQLITE_BINDINGS}


def _binding_upserts(dialect: Dialect) -> BindingUpserts:
    if dialect.name not in _BINDINGS:  # compiled when it is wanted: it takes the engine's driver
        _BINDINGS[dialect.name] = BindingUpserts(dialect)
    return _BINDINGS[dialect.name]
