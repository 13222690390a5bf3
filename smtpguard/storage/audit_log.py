"""The audit log: acts in one chain, each with the hash of the one before.

Acts are appended by the transaction that does what they tell of, one after the other across all processes of a store:
who appends holds the chain's lock until the commit. The act is the first thing that its transaction writes, so that
nobody waits for that lock who holds what its holder waits for.
"""

import builtins
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from smtpguard.domain.audit import FIRST_HASH, Act, ActKind, RecordedAct, act_hash
from smtpguard.storage.dialects import lock
from smtpguard.storage.long_work import LongWork
from smtpguard.storage.tables import audit_log, storable
from smtpguard.storage.writer import Writer

CHAIN_LOCK = 0x736D_7470_0002
_LAST = select(audit_log).order_by(audit_log.c.id.desc()).limit(1)
_APPEND = insert(audit_log)


class AuditLog:
    """What operators, recipients and the guard did."""

    def __init__(self, writer: Writer, long_work: LongWork) -> None:
        self._writer = writer
        self._long_work = long_work

    async def audit(self, act: Act) -> None:
        """Record an act that changes nothing else in the store, or all of it elsewhere; durable when it returns."""
        await self._writer.write(lambda connection: append_act(connection, act), durable=True)

    async def list(self, *, limit: int, after: int | None) -> builtins.list[RecordedAct]:
        """Return the acts, newest first, that came before the one of the id ``after``; ``limit`` 0: all."""
        return await self._long_work.gather(_older, limit=limit, after=after, cursor_of=lambda recorded: recorded.id)

    async def verify(self) -> int | None:
        """Follow the whole chain; return the id of the first act that does not follow, None if all do."""
        chain = self._long_work.pages(_links, limit=0, after=None, cursor_of=lambda link: link)
        async with aclosing(chain) as pages:
            async for page in pages:
                for link in page:
                    if not link.follows:
                        return link.id
        return None


@dataclass(frozen=True, slots=True)
class _Link:
    """What the check of the chain needs of one act."""

    id: int
    hash: str
    follows: bool


def lock_chain(connection: Connection) -> None:
    """Take the chain's lock, where it is not yet known whether there will be an act."""
    lock(connection, CHAIN_LOCK)


def append_act(connection: Connection, act: Act) -> None:
    """Append an act to the chain, within a transaction of the writer."""
    lock_chain(connection)
    last = connection.execute(_LAST).first()
    previous_id, previous_hash = (last.id, last.hash) if last else (0, FIRST_HASH)
    # As it can be kept, so that the hash is that of what is kept.
    act = replace(act, actor=storable(act.actor), subject=storable(act.subject), why=storable(act.why))
    values = {
        "id": previous_id + 1,
        "at": act.at,
        "actor": act.actor,
        "kind": act.kind.value,
        "subject": act.subject,
        "why": act.why,
        "previous_hash": previous_hash,
        "hash": act_hash(previous_hash, act),
    }
    connection.execute(_APPEND, values)


def _older(connection: Connection, before: int | None, rows: int) -> list[RecordedAct]:
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(rows)
    if before is not None:
        query = query.where(audit_log.c.id < before)
    return [_recorded(row) for row in connection.execute(query)]


def _links(connection: Connection, last: _Link | None, rows: int) -> list[_Link]:
    previous = last or _Link(0, FIRST_HASH, follows=True)
    query = select(audit_log).where(audit_log.c.id > previous.id).order_by(audit_log.c.id).limit(rows)
    links = []
    for row in connection.execute(query):
        previous = _Link(row.id, row.hash, follows=_follows(row, previous.hash))
        links.append(previous)
    return links


def _follows(row: Row[Any], previous_hash: str) -> bool:
    try:
        return _recorded(row).follows(previous_hash)
    except ValueError:  # no act of this kind was ever recorded
        return False


def _recorded(row: Row[Any]) -> RecordedAct:
    act = Act(row.at, row.actor, ActKind(row.kind), row.subject, row.why)
    return RecordedAct(row.id, act, row.previous_hash, row.hash)
