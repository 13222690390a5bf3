"""The quarantine: messages that wait, what became of them, and their content for as long as it may be needed.

The content of a transaction goes with the last of its messages that is open.
"""

import asyncio
import builtins
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, exists, func, insert, select, update
from zstandard import ZstdCompressor

from smtpguard.domain.audit import Act
from smtpguard.domain.decision import Reason
from smtpguard.domain.envelope import NULL_REVERSE_PATH, Body, MailParameters, RcptParameters, ReversePath
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.message import HeaderSummary
from smtpguard.domain.quarantined import (
    OPEN_STATES,
    Backlog,
    Expiring,
    MessageContent,
    QuarantinedMessage,
    QuarantineState,
)
from smtpguard.errors import ActRefused, NotFound, StoreError
from smtpguard.storage.audit_log import append_act, lock_chain
from smtpguard.storage.contents import pack, unpack
from smtpguard.storage.driver_statement import StatementOnEither
from smtpguard.storage.expiry import announce, count_expiring, some_due
from smtpguard.storage.long_work import LongWork
from smtpguard.storage.mailboxes import stored_mailbox
from smtpguard.storage.tables import message_contents, quarantined_messages
from smtpguard.storage.writer import Writer

SMALL_OCTETS = 16_384
"""Messages up to this size the writer packs: whoever packs lets go of the interpreter, and waits for it afterwards."""
BIG_OCTETS = 262_144
"""Of messages from this size on one at a time is packed and written: a hundred at once have their turns."""

_OPEN = [state.value for state in OPEN_STATES]
_KEEP_CONTENT = StatementOnEither(insert(message_contents))
_KEEP_MESSAGE = StatementOnEither(insert(quarantined_messages))
# What each release executes is built once: to build a statement takes longer than SQLite takes for it.
_MESSAGE = select(quarantined_messages).where(quarantined_messages.c.id == bindparam("message_id"))
_CONTENT = select(message_contents).where(message_contents.c.transaction_id == bindparam("transaction"))
_LOCK_CONTENT = _CONTENT.with_only_columns(message_contents.c.transaction_id).with_for_update()
_DROP_CONTENT_OF_CLOSED = delete(message_contents).where(
    message_contents.c.transaction_id == bindparam("transaction"),
    ~exists().where(
        quarantined_messages.c.transaction_id == bindparam("transaction"), quarantined_messages.c.state.in_(_OPEN)
    ),
)
_MOVE = (
    update(quarantined_messages)
    .where(quarantined_messages.c.id == bindparam("message_id"), quarantined_messages.c.state == bindparam("expected"))
    # What waits again is announced again before it expires.
    .values(
        {name: bindparam(name) for name in ("state", "decided_at", "decided_by", "decided_why")}
        | {"announced_at": None}
    )
)


class Quarantine:
    """The messages that were kept back."""

    def __init__(self, writer: Writer, long_work: LongWork) -> None:
        self._writer = writer
        self._long_work = long_work
        self._big_one = asyncio.Lock()
        self._small_ones = ZstdCompressor()  # for the writer's thread; to make one anew costs more than compressing
        # Each thread would keep the memory that compressing has once taken.
        self._packer = ThreadPoolExecutor(1, thread_name_prefix="smtpguard-packer")

    async def close(self) -> None:
        """Finish what was handed in."""
        await asyncio.to_thread(self._packer.shutdown)

    async def keep(
        self, messages: Sequence[QuarantinedMessage], summary: HeaderSummary, pieces: Iterable[bytes]
    ) -> None:
        """Keep a transaction's messages and their content; all is on disk when it returns.

        The ``pieces`` of the content, not dot-stuffed, are read first, those of a big message in a thread; what reading
        them raises is raised. Raises StoreFull: nothing was kept; StoreUnavailable: what was kept, if anything,
        ``take_back`` removes.
        """
        [transaction_id] = {message.transaction_id for message in messages}
        async with self._big_one if messages[0].size >= BIG_OCTETS else nullcontext():
            if messages[0].size <= SMALL_OCTETS:
                content = b"".join(pieces)
                await self._write(messages, partial(pack, transaction_id, summary, [content], self._small_ones))
            else:
                packed = await self._packed_in_thread(transaction_id, summary, pieces)
                await self._write(messages, lambda: packed)

    async def _write(self, messages: Sequence[QuarantinedMessage], packed: Callable[[], dict[str, Any]]) -> None:
        rows = [_values(message) for message in messages]

        def work(connection: Connection) -> None:
            _KEEP_CONTENT.execute(connection, [packed()])
            _KEEP_MESSAGE.execute(connection, rows)

        await self._writer.write(work, durable=True)

    async def _packed_in_thread(
        self, transaction_id: str, summary: HeaderSummary, pieces: Iterable[bytes]
    ) -> dict[str, Any]:
        work = partial(pack, transaction_id, summary, pieces, ZstdCompressor())
        return await asyncio.get_running_loop().run_in_executor(self._packer, work)

    async def take_back(self, transaction_id: str) -> int:
        """Remove a transaction's messages that still wait, as if they had never been kept; return how many."""
        waiting = delete(quarantined_messages).where(
            quarantined_messages.c.transaction_id == transaction_id,
            quarantined_messages.c.state == QuarantineState.QUARANTINED.value,
        )

        def work(connection: Connection) -> int:
            _lock_content(connection, transaction_id)
            removed = connection.execute(waiting).rowcount
            _drop_content_of_closed(connection, transaction_id)
            return removed

        return await self._writer.write(work, durable=True)

    async def get(self, message_id: str) -> QuarantinedMessage:
        """Return one message; raises NotFound."""
        return await self._long_work.read(lambda connection: _get(connection, message_id))

    async def content(self, message_id: str) -> MessageContent:
        """Return the content of a message.

        Raises NotFound; ActRefused where the content is gone; StoreError where it is not what was kept.
        """
        row = await self._long_work.read(lambda connection: _content_row(connection, message_id))
        return await asyncio.to_thread(unpack, row)

    async def list(
        self, *, limit: int, after: str | None, states: Collection[QuarantineState]
    ) -> builtins.list[QuarantinedMessage]:
        """Return the messages in these states behind the id ``after``, oldest first; ``limit`` 0: all."""
        wanted = quarantined_messages.c.state.in_([state.value for state in states])

        def page(connection: Connection, after: str | None, rows: int) -> list[QuarantinedMessage]:
            behind = quarantined_messages.c.id > (after or "")
            query = select(quarantined_messages).where(wanted, behind).order_by(quarantined_messages.c.id)
            return [_message(row) for row in connection.execute(query.limit(rows))]

        return await self._long_work.gather(page, limit=limit, after=after, cursor_of=lambda message: message.id)

    async def waiting_for(
        self, recipient: Mailbox, customer: str | None, *, reasons: Collection[Reason], since: datetime
    ) -> builtins.list[QuarantinedMessage]:
        """Return what waits for a recipient and a customer (None: none was named) for these reasons, oldest first."""
        wanted = (
            quarantined_messages.c.recipient_key == recipient.lookup_key,
            quarantined_messages.c.customer == (customer or ""),
            quarantined_messages.c.state == QuarantineState.QUARANTINED.value,
            quarantined_messages.c.reason.in_([reason.value for reason in reasons]),
            quarantined_messages.c.received_at > since,
        )

        def page(connection: Connection, after: str | None, rows: int) -> list[QuarantinedMessage]:
            behind = quarantined_messages.c.id > (after or "")
            query = select(quarantined_messages).where(*wanted, behind).order_by(quarantined_messages.c.id)
            return [_message(row) for row in connection.execute(query.limit(rows))]

        return await self._long_work.gather(page, limit=0, after=None, cursor_of=lambda message: message.id)

    async def backlog(self, *, expiring_until: datetime | None) -> Backlog:
        """Count what is open; what came by this time expires soon, None: nothing does."""
        number = func.count()
        counted = select(quarantined_messages.c.state, number).where(quarantined_messages.c.state.in_(_OPEN))
        # The ids sort by time, and an index by state and id.
        waiting = quarantined_messages.c.state == QuarantineState.QUARANTINED.value
        oldest = select(quarantined_messages.c.received_at).where(waiting).order_by(quarantined_messages.c.id).limit(1)

        def work(connection: Connection) -> Backlog:
            rows = connection.execute(counted.group_by(quarantined_messages.c.state)).all()
            numbers = {QuarantineState(state): count for state, count in rows}
            expiring = count_expiring(connection, expiring_until).count if expiring_until else 0
            of_states = {state: numbers.get(state, 0) for state in OPEN_STATES}
            return Backlog(of_states, connection.execute(oldest).scalar(), expiring)

        return await self._long_work.read(work)

    async def move(self, message_id: str, *, expected: QuarantineState, to: QuarantineState, act: Act) -> None:
        """Move a message from the expected state to another, with its act, on disk when it returns.

        Of those who move it at once, one succeeds. Raises NotFound; ActRefused where the state is another one.
        """

        def work(connection: Connection) -> None:
            append_act(connection, act)
            message = _get(connection, message_id)
            _lock_content(connection, message.transaction_id)
            if not _moved(connection, message_id, expected=expected, to=to, act=act):
                now = _state_in_words(_get(connection, message_id))
                raise ActRefused(f"message {message_id} is {now}, not {expected.value}")
            _drop_content_of_closed(connection, message.transaction_id)

        await self._writer.write(work, durable=True)

    async def expiring(self, *, received_until: datetime) -> Expiring:
        """Count the waiting messages that came by this time."""
        return await self._long_work.read(lambda connection: count_expiring(connection, received_until))

    async def announce(self, *, received_until: datetime, at: datetime) -> int:
        """Note of some waiting messages that came by this time that their expiry is announced; return of how many."""
        return await self._writer.write(lambda connection: announce(connection, received_until, at), durable=True)

    async def expire(
        self, *, received_until: datetime, announced_until: datetime, act: Callable[[str], Act]
    ) -> builtins.list[str]:
        """Let some waiting messages expire that came, and were announced, by these times; return their ids.

        Each gets an act of its own. What others move at the same moment is theirs.
        """

        def work(connection: Connection) -> list[str]:
            lock_chain(connection)
            due = some_due(connection, received_until, announced_until)
            return [each for each, transaction_id in due if _expired(connection, each, transaction_id, act(each))]

        return await self._writer.write(work, durable=True)


def _expired(connection: Connection, message_id: str, transaction_id: str, act: Act) -> bool:
    """Let a message expire; False where it does not wait any more."""
    _lock_content(connection, transaction_id)
    if not _moved(connection, message_id, expected=QuarantineState.QUARANTINED, to=QuarantineState.EXPIRED, act=act):
        return False
    append_act(connection, act)
    _drop_content_of_closed(connection, transaction_id)
    return True


def _get(connection: Connection, message_id: str) -> QuarantinedMessage:
    row = connection.execute(_MESSAGE, {"message_id": message_id}).first()
    if row is None:
        raise NotFound(f"there is no quarantined message {message_id}")
    return _message(row)


def _content_row(connection: Connection, message_id: str) -> Row[Any]:
    message = _get(connection, message_id)
    row = connection.execute(_CONTENT, {"transaction": message.transaction_id}).first()
    if row is not None:
        return row
    if message.state in OPEN_STATES:
        raise StoreError(f"the content of message {message_id} is missing, though it is {message.state.value}")
    raise ActRefused(f"the content of message {message_id} is gone: it is {_state_in_words(message)}")


def _lock_content(connection: Connection, transaction_id: str) -> None:
    """Let nobody else close messages of this transaction, so that the last one closed is seen to be the last."""
    connection.execute(_LOCK_CONTENT, {"transaction": transaction_id})


def _moved(
    connection: Connection, message_id: str, *, expected: QuarantineState, to: QuarantineState, act: Act
) -> bool:
    decided = (None, None, None) if to in OPEN_STATES else (act.at, act.actor, act.why)
    values = dict(zip(("decided_at", "decided_by", "decided_why"), decided, strict=True))
    named = {"message_id": message_id, "expected": expected.value, "state": to.value}
    return connection.execute(_MOVE, named | values).rowcount == 1


def _drop_content_of_closed(connection: Connection, transaction_id: str) -> None:
    connection.execute(_DROP_CONTENT_OF_CLOSED, {"transaction": transaction_id})


def _state_in_words(message: QuarantinedMessage) -> str:
    decided = f", by {message.decided_by} at {message.decided_at:%Y-%m-%d %H:%M:%S} UTC" if message.decided_at else ""
    return f"{message.state.value}{decided}"


def _values(message: QuarantinedMessage) -> dict[str, Any]:
    reverse_path = message.reverse_path if isinstance(message.reverse_path, Mailbox) else None
    return {
        "id": message.id,
        "transaction_id": message.transaction_id,
        "state": message.state.value,
        "recipient": message.recipient.text,
        "recipient_key": message.recipient.lookup_key,
        "reverse_path": reverse_path.text if reverse_path else None,
        "reverse_path_key": reverse_path.lookup_key if reverse_path else None,
        "parameters": _parameter_values(message.parameters, message.rcpt_parameters),
        "application": message.application,
        "customer": message.customer or "",
        "reason": message.reason.value,
        "received_at": message.received_at,
        "subject": message.subject,
        "size": message.size,
        "decided_at": message.decided_at,
        "decided_by": message.decided_by,
        "decided_why": message.decided_why,
        "announced_at": None,
    }


def _message(row: Row[Any]) -> QuarantinedMessage:
    return QuarantinedMessage(
        id=row.id,
        transaction_id=row.transaction_id,
        state=QuarantineState(row.state),
        recipient=stored_mailbox(row.recipient, row.recipient_key),
        reverse_path=_reverse_path(row),
        parameters=_mail_parameters(row.parameters),
        rcpt_parameters=RcptParameters(notify=row.parameters.get("notify"), orcpt=row.parameters.get("orcpt")),
        application=row.application,
        customer=row.customer or None,
        reason=Reason(row.reason),
        received_at=row.received_at,
        subject=row.subject,
        size=row.size,
        decided_at=row.decided_at,
        decided_by=row.decided_by,
        decided_why=row.decided_why,
    )


def _reverse_path(row: Row[Any]) -> ReversePath:
    return NULL_REVERSE_PATH if row.reverse_path is None else stored_mailbox(row.reverse_path, row.reverse_path_key)


def _parameter_values(mail: MailParameters, rcpt: RcptParameters) -> dict[str, Any]:
    values = {
        "body": mail.body and mail.body.value,
        "smtputf8": mail.smtputf8 or None,
        "ret": mail.ret,
        "envid": mail.envid,
        "notify": rcpt.notify,
        "orcpt": rcpt.orcpt,
    }
    return {name: value for name, value in values.items() if value is not None}


def _mail_parameters(values: dict[str, Any]) -> MailParameters:
    return MailParameters(
        body=Body(values["body"]) if "body" in values else None,
        smtputf8=values.get("smtputf8", False),
        ret=values.get("ret"),
        envid=values.get("envid"),
    )
