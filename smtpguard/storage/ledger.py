"""The ledger: what was done for each recipient of each transaction.

Its commits are relaxed: they survive the death of the process, and a power cut may cost the last moments.
"""

import builtins
from collections.abc import Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.domain.ledger import LedgerEntry, LedgerRow
from smtpguard.storage.database import HotPath
from smtpguard.storage.long_work import LongWork
from smtpguard.storage.mailboxes import stored_mailbox
from smtpguard.storage.tables import SAMPLED, ledger

CLOCKS_APART = timedelta(hours=1)
"""By how much the clocks of the processes of a store may differ before a list since a time may miss a row."""


class Ledger:
    """The record of verdicts and of what the smarthost said."""

    def __init__(self, hot_path: HotPath, long_work: LongWork) -> None:
        self._hot_path = hot_path
        self._long_work = long_work

    def record(self, entries: Sequence[LedgerEntry]) -> Coroutine[Any, Any, None]:
        """Add entries, one at least; the customers that they name are bound to their recipients."""
        return self._hot_path.record(entries)

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
            query = query.where(ledger.c.at >= since, ledger.c.id >= _first_id(since))

        def page(connection: Connection, before: int | None, rows: int) -> list[LedgerRow]:
            older = query if before is None else query.where(ledger.c.id < before)
            return [_ledger_row(row) for row in connection.execute(older.limit(rows))]

        return await self._long_work.gather(page, limit=limit, after=after, cursor_of=lambda row: row.id)


def _first_id(since: datetime) -> ColumnElement[int]:
    """An id before which no row is younger: rows come in the order of their times, but for clocks that disagree."""
    older = select(ledger.c.id).where(SAMPLED, ledger.c.at < since - CLOCKS_APART)
    return func.coalesce(older.order_by(ledger.c.at.desc()).limit(1).scalar_subquery(), 0)


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
