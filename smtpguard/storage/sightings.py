"""First and last seen: the upserts that put addresses and bindings on record, for all who write.

Rows go in by the order of their keys, so that two writers at once do not deadlock.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, bindparam, case, func, select, update

from smtpguard.domain.mailbox import Mailbox
from smtpguard.storage.dialects import Insert, execute_rows, insert_into
from smtpguard.storage.tables import UtcDateTime, addresses, bindings

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
    connection.execute(upsert_addresses(connection), seen)


def see_bindings(connection: Connection, seen: Mapping[tuple[str, str], datetime]) -> None:
    """Bind (lookup key, customer) pairs; an address that is not on record is not put there by this."""
    rows = [{"key": key, "to": customer, "at": at} for (key, customer), at in sorted(seen.items())]
    if not rows or execute_rows(connection, _SEEN_AGAIN, rows) == len(rows):
        return
    known = insert_into(connection, addresses).on_conflict_do_nothing(index_elements=[addresses.c.lookup_key])
    execute_rows(connection, known.values(lookup_key=bindparam("key"), address=bindparam("key")), rows)
    values = {"address_id": _ADDRESS_ID, "customer": bindparam("to"), "first_seen": _AT, "last_seen": _AT}
    execute_rows(connection, upsert_bindings(connection).values(values), rows)


def upsert_addresses(connection: Connection) -> Insert:
    """An INSERT that keeps the text and ``first_seen`` of an address on record, and moves ``last_seen`` forwards."""
    insert = insert_into(connection, addresses)
    first = addresses.c.first_seen.is_(None)
    values = {
        "address": case((first, insert.excluded.address), else_=addresses.c.address),
        "first_seen": func.coalesce(addresses.c.first_seen, insert.excluded.first_seen),
        "last_seen": case((first, insert.excluded.last_seen), else_=_later(addresses.c.last_seen, insert)),
    }
    return insert.on_conflict_do_update(index_elements=[addresses.c.lookup_key], set_=values)


def upsert_bindings(connection: Connection) -> Insert:
    """An INSERT that moves ``last_seen`` of a binding forwards."""
    insert = insert_into(connection, bindings)
    values = {"last_seen": _later(bindings.c.last_seen, insert)}
    return insert.on_conflict_do_update(index_elements=list(bindings.primary_key), set_=values)


def _later(last_seen: Column[Any], insert: Insert) -> ColumnElement[Any]:
    return case((insert.excluded.last_seen > last_seen, insert.excluded.last_seen), else_=last_seen)
