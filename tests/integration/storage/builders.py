"""Values for the tests of the store, and a way around it to its tables."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from smtpguard.domain.audit import Act, ActKind
from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.domain.envelope import MailParameters, ReversePath
from smtpguard.domain.import_row import ImportRow
from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.message import HeaderSummary
from smtpguard.domain.quarantined import MessageContent, QuarantinedMessage, QuarantineState
from smtpguard.domain.standing import Flag, Standing, Voucher
from smtpguard.storage import Store
from smtpguard.storage.database import database_at
from smtpguard.storage.postgres_line import PostgresLine
from smtpguard.storage.writer import Writer

NOW = datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SUMMARY = HeaderSummary("Bill", "Shop <shop@shop.example>", "today", "<1@shop>")
CONTENT = MessageContent(b"Subject: Bill\r\n\r\nPay.\r\n", "Bill", "Shop <shop@shop.example>", "today", "<1@shop>")
_numbers = itertools.count(1)


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """The tables themselves; committed at the end."""
    engine = database_at(url).engine(connections=1)
    try:
        with engine.execution_options(writes=True).begin() as connection:
            yield connection
    finally:
        engine.dispose()


@asynccontextmanager
async def held_up(line: PostgresLine[Any, Any], first: Awaitable[Any]) -> AsyncIterator[None]:
    """Let the line be busy with the first request until the block ends."""
    channel, begun = line._channel, asyncio.get_running_loop().create_future()
    exchange, channel.exchange = channel.exchange, lambda *exchange: begun.set_result(exchange)
    task = asyncio.ensure_future(first)
    under_way = await begun
    channel.exchange = exchange
    try:
        yield
    finally:
        exchange(*under_way)
        await task


def writer_of(store: Store) -> Writer:
    return store.quarantine._writer


def act(kind: ActKind = ActKind.SETTLE, subject: str = "x", *, at: datetime = NOW, why: str = "because") -> Act:
    return Act(at=at, actor="anna", kind=kind, subject=subject, why=why)


def voucher(customer: str | None = None, **values: Any) -> Voucher:
    return Voucher(**{"customer": customer, "method": "operator", "verified_at": NOW, "by": "anna"} | values)


def flag(reason: str = "wrong person", *, since: datetime = NOW, by: str = "anna") -> Flag:
    return Flag(reason, since, by)


def messages(
    *recipients: str, transaction_id: str | None = None, reverse_path: ReversePath | None = None, **values: Any
) -> list[QuarantinedMessage]:
    """One transaction's messages; a later one sorts behind an earlier one."""
    transaction_id = transaction_id or f"T{next(_numbers):06}"
    defaults: dict[str, Any] = {
        "state": QuarantineState.QUARANTINED,
        "reverse_path": reverse_path or parse_mailbox("Shop@shop.example"),
        "parameters": MailParameters(),
        "application": "crm",
        "customer": "C1",
        "reason": Reason.NOT_VERIFIED,
        "received_at": NOW,
        "subject": "Bill",
        "size": len(CONTENT.message),
    }
    return [
        QuarantinedMessage(
            id=f"{transaction_id}.{number}",
            transaction_id=transaction_id,
            recipient=parse_mailbox(recipient),
            **defaults | values,
        )
        for number, recipient in enumerate(recipients or ("Anna@example.org",), start=1)
    ]


def entry(recipient: str = "Anna@example.org", **values: Any) -> LedgerEntry:
    defaults: dict[str, Any] = {
        "transaction_id": f"T{next(_numbers):06}",
        "at": NOW,
        "application": "crm",
        "decision": Decision(parse_mailbox(recipient), Verdict.RELAY, Reason.VERIFIED),
        "customer": None,
        "smarthost_reply": "250 2.0.0 OK queued",
        "message_id": "<1@shop>",
        "subject_digest": "ab" * 32,
    }
    return LedgerEntry(**defaults | values)


def import_row(address: str, standing: Standing = Standing.VERIFIED, **values: Any) -> ImportRow:
    defaults: dict[str, Any] = {"customer": None, "verified_at": None, "source": "crm", "reason": "bounced"}
    return ImportRow(mailbox=parse_mailbox(address), standing=standing, **defaults | values)


def somebody_waits(url: str) -> bool:
    """Whether a session of a PostgreSQL store waits for another one's lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with connected(url) as connection:
        return connection.execute(waiting).scalar_one() > 0
