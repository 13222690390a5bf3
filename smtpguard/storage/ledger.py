"""The ledger: what was done for each recipient of each transaction.

Its commits are relaxed: they survive the death of the process, and a power cut may cost the last moments.
"""

import builtins
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.domain.ledger import LedgerEntry, LedgerRow
from smtpguard.storage.dialects import execute_rows
from smtpguard.storage.long_work import LongWork
from smtpguard.storage.mailboxes import stored_mailbox
from smtpguard.storage.sightings import see_bindings
from smtpguard.storage.tables import ledger
from smtpguard.storage.writer import Writer


class Ledger:
    """The record of verdicts and of what the smarthost said."""

    def __init__(self, writer: Writer, long_work: LongWork) -> None:
        self._writer = writer
        self._long_work = long_work

    async def record(self, entries: Sequence[LedgerEntry]) -> None:
        """Add entries; the customers that they name are bound to their recipients."""

        def work(connection: Connection) -> None:
            execute_rows(connection, insert(ledger), [_values(entry) for entry in entries])
            see_bindings(connection, _sightings(entries))

        if entries:
            await self._writer.write(work, durable=False)

    async def list(
        self, *, limit: int, after: int | None, recipient: str | None = None, since: datetime | None = None
    ) -> builtins.list[LedgerRow]:
        """Return the entries, newest first, that came before the one of the id ``after``; ``limit`` 0: all.

        ``recipient`` is a lookup key; both it and ``since`` narrow the list.
        """
        query = select(ledger).order_by(ledger.c.id.desc())
        if recipient is not None:
            query = query.where(ledger.c.recipient_key == recipient)
        if since is not None:
            query = query.where(ledger.c.at >= since)

        def page(connection: Connection, before: int | None, rows: int) -> list[LedgerRow]:
            older = query if before is None else query.where(ledger.c.id < before)
            return [_ledger_row(row) for row in connection.execute(older.limit(rows))]

        return await self._long_work.gather(page, limit=limit, after=after, cursor_of=lambda row: row.id)


def _sightings(entries: Sequence[LedgerEntry]) -> dict[tuple[str, str], datetime]:
    return {
        (entry.decision.recipient.lookup_key, entry.customer): entry.at
        for entry in sorted(entries, key=lambda entry: entry.at)
        if entry.customer is not None
    }


def _values(entry: LedgerEntry) -> dict[str, Any]:
    decision = entry.decision
    return {
        "transaction_id": entry.transaction_id,
        "at": entry.at,
        "application": entry.application,
        "recipient": decision.recipient.text,
        "recipient_key": decision.recipient.lookup_key,
        "customer": entry.customer or "",
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "would_be": decision.would_be.value if decision.would_be else None,
        "smarthost_reply": entry.smarthost_reply,
        "message_id": entry.message_id,
        "subject_digest": entry.subject_digest,
    }


def _ledger_row(row: Row[Any]) -> LedgerRow:
    would_be = Verdict(row.would_be) if row.would_be else None
    recipient = stored_mailbox(row.recipient, row.recipient_key)
    entry = LedgerEntry(
        transaction_id=row.transaction_id,
        at=row.at,
        application=row.application,
        decision=Decision(recipient, Verdict(row.verdict), Reason(row.reason), would_be),
        customer=row.customer or None,
        smarthost_reply=row.smarthost_reply,
        message_id=row.message_id,
        subject_digest=row.subject_digest,
    )
    return LedgerRow(row.id, entry)
