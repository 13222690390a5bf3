"""One transaction with the smarthost: MAIL and RCPT in one flight, then the body and the final dot, in one step or two.

Whatever fails, or is cancelled, in the middle closes the connection, so that no reply is ever taken for the reply to
another command. Until the final dot has been handed to the transport nothing can have been delivered. While the
application takes its time before DATA, others use the connection; MAIL and RCPT are repeated then. Nothing past DATA
ever is.
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from smtpguard.domain.envelope import ForwardPath, MailParameters, ReversePath
from smtpguard.domain.reply import Reply
from smtpguard.errors import SmarthostLost, SmarthostUnavailable
from smtpguard.relay.commands import mail_command, missing_extension, rcpt_command
from smtpguard.relay.connection import (
    POSITIVE,
    SERVICE_CLOSING,
    UPLOAD_SLICE_OCTETS,
    SmarthostConnection,
    SmarthostGone,
)
from smtpguard.relay.flight import Flight
from smtpguard.relay.pool import ConnectionPool
from smtpguard.settings import SmarthostSettings

GO_AHEAD = (354,)
FINAL = frozenset(POSITIVE) | {SERVICE_CLOSING}  # after the final dot 421 is an answer as well: a refusal

HOLD_SECONDS = 3.0  # longer than an application that has its message ready takes from one command to the next


Octets = bytes | bytearray | memoryview
P = ParamSpec("P")
R = TypeVar("R")


class _State(Enum):
    NEW = auto()
    """The smarthost knows of no recipient: none has been answered, or the connection was given up meanwhile."""
    OPEN = auto()
    """DATA can be sent."""
    BODY = auto()
    """DATA has been sent, the final dot has not."""
    OVER = auto()


_NEW, _OPEN, _BODY, _OVER = _State  # before Python 3.12 a look at a member of an enumeration costs as much as a call


def _operation(
    call: Callable[Concatenate["SmarthostTransaction", P], Awaitable[R]],
) -> Callable[Concatenate["SmarthostTransaction", P], Coroutine[Any, Any, R]]:
    """Keep the connection while a call runs and for a moment after it; end the transaction if it fails."""

    @wraps(call)
    async def operation(self: "SmarthostTransaction", /, *args: P.args, **kwargs: P.kwargs) -> R:
        self._stop_holding()
        try:
            result = await call(self, *args, **kwargs)
        except BaseException:
            self._close()
            self._give_back()
            raise
        self._hold()
        return result

    return operation


class SmarthostTransaction:
    """One transaction. Its calls are made one after the other; ``deliver``, ``finish`` or ``abort`` is the last."""

    def __init__(
        self,
        pool: ConnectionPool,
        settings: SmarthostSettings,
        *,
        reverse_path: ReversePath,
        parameters: MailParameters,
        size: int | None,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._reverse_path = reverse_path
        self._parameters = parameters
        self._size = size
        self._state = _NEW
        self._connection: SmarthostConnection | None = None
        self._has_hung_up = False
        self._accepted: list[ForwardPath] = []
        self._refusal: Reply | None = None

    @_operation
    async def rcpt(self, recipients: Sequence[ForwardPath]) -> list[Reply]:
        """Offer recipients and return one reply for each, in their order; the first call sends MAIL before them.

        A refused MAIL is the reply to each recipient, now and later. Raises SmarthostUnavailable: the transaction is
        over, nothing was sent.
        """
        if self._refusal is not None:
            return [self._refusal] * len(recipients)
        if self._state is _NEW and not self._accepted:
            return await self._begin(recipients)
        connection = self._held() or await self._resume()
        flight = self._flight(connection, [rcpt_command(path, connection.capabilities) for path in recipients])
        return await self._answers(flight, recipients)

    @_operation
    async def restart(self, recipients: Sequence[ForwardPath]) -> list[Reply]:
        """Begin again for these recipients only; everything else as ``rcpt`` does."""
        if self._refusal is not None:
            return [self._refusal] * len(recipients)
        if await self._is_held():
            return await self._offer(self._connection_in(_OPEN), recipients)
        return await self._begin(recipients)

    @_operation
    async def send_body(self, chunks: AsyncIterable[Octets]) -> Reply:
        """Send DATA and, if the reply is 354, the body without the final dot; return the reply.

        The chunks together are dot-stuffed and end with CRLF, or are empty; each is done with when the next is asked
        for. Any other reply is a refusal, which may come in the middle of the body, and the transaction is over.
        Raises SmarthostUnavailable.
        """
        connection = await self._resume()
        reply = await self._announce_body(connection)
        if reply.code in GO_AHEAD:
            reply = await self._upload(connection, chunks) or reply
        if reply.code not in GO_AHEAD:
            self._give_back()
        return reply

    @_operation
    async def finish(self) -> Reply:
        """Send the final dot and return the reply: the smarthost has the message if it is positive.

        Raises SmarthostUnavailable if the dot was not sent, SmarthostLost if it was and no reply came.
        """
        connection = self._connection_in(_BODY)
        await connection.catch_up()
        reply = await self._send_end(connection, b"")
        self._give_back()
        return reply

    @_operation
    async def deliver(self, wire: Octets, *, before_dot: Callable[[], None]) -> Reply:
        """Send DATA and, if the reply is 354, the whole body with the final dot; return the last reply.

        For a body in memory, of any size, which is dot-stuffed and ends with CRLF, or is empty. ``before_dot`` is
        called at the last moment at which nothing can have been delivered; what it raises goes up, and the dot is not
        sent. A reply to DATA other than 354, or one that cuts the body short, is a refusal. Raises SmarthostUnavailable
        if the dot did not leave this process, SmarthostLost if it did and no reply came.
        """
        _require_line_end(wire[-2:])
        connection = self._held() or await self._resume()
        reply = await self._announce_body(connection)
        if reply.code in GO_AHEAD:
            reply = await self._send_whole(connection, wire, before_dot)
        self._give_back()
        return reply

    async def abort(self) -> None:
        """End the transaction before the final dot; do nothing if it is over. Never raises.

        Before DATA the connection is kept; the next transaction begins with RSET then.
        """
        if self._state is _BODY:
            self._close()
        self._give_back()

    # MAIL and RCPT

    async def _begin(self, recipients: Sequence[ForwardPath]) -> list[Reply]:
        self._connection = await self._pool.borrow()
        reused = self._connection.is_reused
        try:
            return await self._offer(self._connection, recipients)
        except SmarthostGone:
            if not reused or self._state is not _NEW:
                raise
        self._connection = await self._pool.renew(self._connection)
        return await self._offer(self._connection, recipients)

    async def _offer(self, connection: SmarthostConnection, recipients: Sequence[ForwardPath]) -> list[Reply]:
        capabilities = connection.capabilities
        refusal = missing_extension(self._parameters, capabilities)
        if refusal is not None:
            return self._refuse(refusal, recipients)
        mail = mail_command(self._reverse_path, self._parameters, size=self._size, capabilities=capabilities)
        rset = [] if connection.is_reset else [b"RSET\r\n"]
        flight = self._flight(connection, [*rset, mail, *[rcpt_command(path, capabilities) for path in recipients]])
        connection.is_reset = False
        if rset:
            await _require_reset(connection, flight)
        reply = await flight.answer()
        if not reply.is_positive:
            with suppress(SmarthostUnavailable):  # the refusal stands, whatever becomes of the connection
                await flight.cut_short()
            return self._refuse(reply, recipients)
        self._accepted = []
        first = await self._answers(flight, recipients[:1])
        self._state = _OPEN  # once a recipient has been answered, no other connection is tried
        return first + await self._answers(flight, recipients[1:]) if len(recipients) > 1 else first

    async def _answers(self, flight: Flight, recipients: Sequence[ForwardPath]) -> list[Reply]:
        replies = []
        for path in recipients:
            reply = await flight.answer()
            if reply.is_positive:
                self._accepted.append(path)
            replies.append(reply)
        return replies

    def _refuse(self, refusal: Reply, recipients: Sequence[ForwardPath]) -> list[Reply]:
        self._refusal = refusal
        self._give_back()
        return [refusal] * len(recipients)

    def _flight(self, connection: SmarthostConnection, commands: Sequence[bytes]) -> Flight:
        return Flight(connection, commands, seconds=self._settings.command_timeout)

    # The body and the dot

    async def _announce_body(self, connection: SmarthostConnection) -> Reply:
        self._state = _BODY
        connection.write(b"DATA\r\n", replies=1)
        return await connection.answer(self._settings.data_timeout, wanted=GO_AHEAD)

    async def _upload(self, connection: SmarthostConnection, chunks: AsyncIterable[Octets]) -> Reply | None:
        """Send the body; return the refusal that cut it short, if one did."""
        end = b""
        try:
            async for chunk in chunks:
                await connection.upload(chunk, self._settings.block_timeout)
                end = (end + bytes(chunk[-2:]))[-2:]
        except SmarthostUnavailable as error:
            return _early_refusal(connection, error)
        _require_line_end(end)
        return None

    async def _send_whole(self, connection: SmarthostConnection, wire: Octets, before_dot: Callable[[], None]) -> Reply:
        rest = wire
        if len(wire) > UPLOAD_SLICE_OCTETS:
            view = memoryview(wire)
            try:
                await connection.upload(view[:-UPLOAD_SLICE_OCTETS], self._settings.block_timeout)
            except SmarthostUnavailable as error:
                return _early_refusal(connection, error)
            rest = view[-UPLOAD_SLICE_OCTETS:]
        if connection.has_unread():
            await connection.catch_up()
        before_dot()
        return await self._send_end(connection, rest)

    async def _send_end(self, connection: SmarthostConnection, rest: Octets) -> Reply:
        """Send the rest of the body and the final dot, right after ``catch_up``; return the reply."""
        try:
            await connection.end_body(rest, self._settings.block_timeout)
        except SmarthostUnavailable as error:
            return _early_refusal(connection, error)
        try:
            reply = await connection.answer(self._settings.reply_timeout, wanted=FINAL)
        except SmarthostUnavailable as error:
            raise SmarthostLost(f"{error} (after the final dot)") from error
        connection.is_reset = reply.is_positive  # RFC 5321 4.1.1.4: it keeps nothing of what it has processed
        return reply

    # The connection: held while a call runs and for a moment after it, else lent

    def _hold(self) -> None:
        if self._connection is not None and self._state is _OPEN:
            self._connection.alarm.set(HOLD_SECONDS, self._lend)

    def _stop_holding(self) -> None:
        if self._connection is not None:
            self._connection.alarm.clear()

    def _held(self) -> SmarthostConnection | None:
        """Return the connection where the transaction is open with the smarthost, which has said nothing meanwhile."""
        connection = self._connection
        if self._state is not _OPEN or connection is None or connection.is_gone or connection.has_unread():
            return None
        return connection

    async def _is_held(self) -> bool:
        """Whether the transaction is open with the smarthost; False where it has to be begun again."""
        if self._state is _NEW and self._accepted:
            return False
        connection = self._connection_in(_OPEN)
        if connection.has_unread():
            await connection.catch_up()
        if not connection.is_gone or self._has_hung_up:
            return True
        self._has_hung_up = True
        self._lend()
        return False

    async def _resume(self) -> SmarthostConnection:
        """Return the connection to go on with, after what was said to another was repeated to it if need be."""
        if not await self._is_held():
            for reply in await self._begin(self._accepted):
                if not reply.is_positive:
                    raise SmarthostUnavailable(f"the smarthost said to what it had accepted before: {reply}")
        return self._connection_in(_OPEN)

    def _lend(self) -> None:
        """Let others use the connection; whoever is next begins with RSET."""
        self._give_back()
        self._state = _NEW

    def _connection_in(self, state: _State) -> SmarthostConnection:
        if self._connection is None or self._state is not state:
            raise SmarthostUnavailable("the transaction with the smarthost is not open")
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _give_back(self) -> None:
        self._stop_holding()
        self._state = _OVER
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._pool.give_back(connection)


async def _require_reset(connection: SmarthostConnection, flight: Flight) -> None:
    """RSET is never refused (RFC 5321 4.1.1.5), except by a server that is about to hang up."""
    reply = await flight.answer()
    if not reply.is_positive:
        raise connection.failed(f"it said to RSET: {reply}", gone=True)


def _early_refusal(connection: SmarthostConnection, error: SmarthostUnavailable) -> Reply:
    """Return the refusal that cut a body short; raise the error if none did."""
    if connection.early_refusal is None:
        raise error
    return connection.early_refusal


def _require_line_end(end: Octets) -> None:
    if end not in (b"", b"\r\n"):
        raise ValueError("the body does not end with CRLF: the final dot would be part of it")
