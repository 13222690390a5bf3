"""First and last seen: the upserts that put addresses and bindings on record, for all who write."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, case

from smtpguard.domain.mailbox import Mailbox
from smtpguard.storage.dialects import insert_into
from smtpguard.storage.tables import addresses, bindings


def see_address(connection: Connection, mailbox: Mailbox, at: datetime) -> None:
    """Put an address on record; its text stays as it was seen first."""
    seen = {"lookup_key": mailbox.lookup_key, "address": mailbox.text, "first_seen": at, "last_seen": at}
    connection.execute(upsert(connection, addresses), seen)


def see_bindings(connection: Connection, seen: Mapping[tuple[str, str], datetime]) -> None:
    """Put (lookup key, customer) pairs on record, in an order of their own, so that two writers do not deadlock."""
    rows = [
        {"lookup_key": lookup_key, "customer": customer, "first_seen": at, "last_seen": at}
        for (lookup_key, customer), at in sorted(seen.items())
    ]
    if rows:
        connection.execute(upsert(connection, bindings), rows)


def upsert(connection: Connection, table: Table) -> Any:
    """An INSERT that moves ``last_seen``, and only forwards, of a row that is there already."""
    insert = insert_into(connection, table)
    later = case((insert.excluded.last_seen > table.c.last_seen, insert.excluded.last_seen), else_=table.c.last_seen)
    return insert.on_conflict_do_update(index_elements=list(table.primary_key), set_={"last_seen": later})
