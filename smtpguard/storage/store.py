"""The store, opened: the address book, the quarantine, the ledger, the audit log and the rest of one database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from smtpguard.errors import StoreUnavailable
from smtpguard.storage.address_book import AddressBook
from smtpguard.storage.allowances import Allowances
from smtpguard.storage.api_tokens import ApiTokens
from smtpguard.storage.audit_log import AuditLog
from smtpguard.storage.database import Database, database_at
from smtpguard.storage.health import Health
from smtpguard.storage.idempotency import IdempotencyKeys
from smtpguard.storage.invitations import Invitations
from smtpguard.storage.ledger import Ledger
from smtpguard.storage.long_work import LongWork
from smtpguard.storage.quarantine import Quarantine
from smtpguard.storage.schema import check_revision
from smtpguard.storage.writer import Writer


@dataclass(frozen=True, slots=True)
class Store:
    """What the guard remembers."""

    address_book: AddressBook
    invitations: Invitations
    quarantine: Quarantine
    ledger: Ledger
    audit_log: AuditLog
    allowances: Allowances
    api_tokens: ApiTokens
    idempotency_keys: IdempotencyKeys
    health: Health


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """Open a store; on leaving, what was handed in is finished.

    Raises SchemaMismatch; StoreUnavailable, also where a commit would not be on disk when it returns.
    """
    database = database_at(url)
    await asyncio.to_thread(check_revision, url)
    async with AsyncExitStack() as stack:
        long_work = LongWork(database)
        stack.push_async_callback(long_work.close)
        writer = Writer(database)
        stack.push_async_callback(writer.close)
        await _verify_durability(writer, database)
        quarantine = Quarantine(writer, long_work)
        stack.push_async_callback(quarantine.close)
        hot_path = await database.hot_path(partial(writer.write, durable=False))
        stack.push_async_callback(hot_path.close)
        yield Store(
            address_book=AddressBook(hot_path, writer, long_work),
            invitations=Invitations(writer, long_work),
            quarantine=quarantine,
            ledger=Ledger(hot_path, long_work),
            audit_log=AuditLog(writer, long_work),
            allowances=Allowances(writer),
            api_tokens=ApiTokens(writer, long_work),
            idempotency_keys=IdempotencyKeys(writer),
            health=Health(hot_path, long_work),
        )


async def _verify_durability(writer: Writer, database: Database) -> None:
    if problem := await writer.write(database.durability_problem, durable=True):
        raise StoreUnavailable(problem)
