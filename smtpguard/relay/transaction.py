"""One transaction with the smarthost: MAIL and RCPT in one flight, then the body and the final dot as two steps.

Whatever fails, or is cancelled, in the middle closes the connection, so that no reply is ever taken for the reply to
another command. Until the final dot has been handed to the transport nothing can have been delivered.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum, auto

from smtpguard.domain.envelope import Body, MailParameters, ReversePath
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.reply import Reply
from smtpguard.errors import SmarthostLost, SmarthostUnavailable
from smtpguard.relay.connection import POSITIVE, SERVICE_CLOSING, SmarthostConnection, SmarthostGone
from smtpguard.relay.flight import Flight
from smtpguard.relay.pool import ConnectionPool
from smtpguard.settings import SmarthostSettings

GO_AHEAD = (354,)
FINAL = frozenset(POSITIVE) | {SERVICE_CLOSING}  # after the final dot 421 is an answer as well: a refusal


class _State(Enum):
    NEW = auto()
    """No recipient has been answered."""
    OPEN = auto()
    """DATA can be sent."""
    BODY = auto()
    """DATA has been sent, the final dot has not."""
    OVER = auto()


class SmarthostTransaction:
    """One transaction. Its calls are made one after the other; ``finish`` or ``abort`` is the last."""

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
        self._state = _State.NEW
        self._connection: SmarthostConnection | None = None
        self._refusal: Reply | None = None

    async def rcpt(self, recipients: Sequence[Mailbox]) -> list[Reply]:
        """Offer recipients and return one reply for each, in their order; the first call sends MAIL before them.

        A refused MAIL is the reply to each recipient, now and later. Raises SmarthostUnavailable: the transaction is
        over, nothing was sent.
        """
        with self._over_if_it_fails():
            if self._refusal is not None:
                return [self._refusal] * len(recipients)
            if self._state is _State.NEW:
                return await self._begin(recipients)
            flight = self._flight(self._connection_in(_State.OPEN), [_rcpt(mailbox) for mailbox in recipients])
            return [await flight.answer() for _ in recipients]

    async def restart(self, recipients: Sequence[Mailbox]) -> list[Reply]:
        """Begin again on the same connection, for these recipients only; everything else as ``rcpt`` does."""
        with self._over_if_it_fails():
            if self._refusal is not None:
                return [self._refusal] * len(recipients)
            return await self._offer(self._connection_in(_State.OPEN), recipients, reset=True)

    async def send_body(self, wire: bytes | bytearray | memoryview) -> Reply:
        """Send DATA and, if the reply is 354, the body without the final dot; return the reply.

        ``wire`` is dot-stuffed and ends with CRLF, or is empty; it is not referred to any more afterwards. Any other
        reply is a refusal, and the transaction is over. Raises SmarthostUnavailable.
        """
        with self._over_if_it_fails():
            connection = self._connection_in(_State.OPEN)
            if wire and bytes(wire[-2:]) != b"\r\n":
                raise ValueError("the body does not end with CRLF: the final dot would be part of it")
            self._state = _State.BODY
            connection.write(b"DATA\r\n", replies=1)
            reply = await connection.answer(self._settings.data_timeout, wanted=GO_AHEAD)
            if reply.code in GO_AHEAD:
                await connection.upload(wire, self._settings.block_timeout)
            else:
                self._give_back()
            return reply

    async def finish(self) -> Reply:
        """Send the final dot and return the reply: the smarthost has the message if it is positive.

        Raises SmarthostUnavailable if the dot was not sent, SmarthostLost if it was and no reply came.
        """
        with self._over_if_it_fails():
            connection = self._connection_in(_State.BODY)
            connection.ensure_silent()
            connection.write(b".\r\n", replies=1)
            try:
                reply = await connection.answer(self._settings.reply_timeout, wanted=FINAL)
            except SmarthostUnavailable as error:
                raise SmarthostLost(f"{error} (after the final dot)") from error
            self._give_back()
            return reply

    async def abort(self) -> None:
        """End the transaction before the final dot; do nothing if it is over. Never raises.

        Before DATA the connection is kept; whoever uses it next begins with RSET.
        """
        if self._state is _State.BODY:
            self._close()
        self._give_back()

    async def _begin(self, recipients: Sequence[Mailbox]) -> list[Reply]:
        self._connection = await self._pool.borrow()
        reused = self._connection.is_reused
        try:
            return await self._offer(self._connection, recipients, reset=reused)
        except SmarthostGone:
            if not reused or self._state is not _State.NEW:
                raise
        self._connection = await self._pool.renew(self._connection)
        return await self._offer(self._connection, recipients, reset=False)

    async def _offer(
        self, connection: SmarthostConnection, recipients: Sequence[Mailbox], *, reset: bool
    ) -> list[Reply]:
        mail = _mail(self._reverse_path, self._parameters, size=self._size, capabilities=connection.capabilities)
        rset = [b"RSET\r\n"] if reset else []
        flight = self._flight(connection, [*rset, mail, *map(_rcpt, recipients)])
        if reset:
            await _require_reset(connection, flight)
        reply = await flight.answer()
        if not reply.is_positive:
            return await self._refuse(flight, reply, recipients)
        first = [await flight.answer() for _ in recipients[:1]]
        self._state = _State.OPEN  # once a recipient has been answered, no other connection is tried
        return first + [await flight.answer() for _ in recipients[1:]]

    async def _refuse(self, flight: Flight, refusal: Reply, recipients: Sequence[Mailbox]) -> list[Reply]:
        """Let the refusal of MAIL stand, whatever becomes of the connection."""
        self._refusal = refusal
        with suppress(SmarthostUnavailable):
            await flight.cut_short()
        self._give_back()
        return [refusal] * len(recipients)

    def _flight(self, connection: SmarthostConnection, commands: Sequence[bytes]) -> Flight:
        return Flight(connection, commands, seconds=self._settings.command_timeout)

    def _connection_in(self, state: _State) -> SmarthostConnection:
        if self._connection is None or self._state is not state:
            raise SmarthostUnavailable("the transaction with the smarthost is not open")
        return self._connection

    @contextmanager
    def _over_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._close()
            self._give_back()
            raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _give_back(self) -> None:
        self._state = _State.OVER
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._pool.give_back(connection)


async def _require_reset(connection: SmarthostConnection, flight: Flight) -> None:
    """RSET is never refused (RFC 5321 4.1.1.5), except by a server that is about to hang up."""
    reply = await flight.answer()
    if not reply.is_positive:
        raise connection.failed(f"it said to RSET: {reply}", gone=True)


def _mail(
    reverse_path: ReversePath, parameters: MailParameters, *, size: int | None, capabilities: Mapping[str, str]
) -> bytes:
    command = f"MAIL FROM:<{reverse_path}>"
    if parameters.body is Body.EIGHT_BIT_MIME and "8BITMIME" in capabilities:
        command += " BODY=8BITMIME"
    if size is not None and "SIZE" in capabilities:
        command += f" SIZE={size}"
    return f"{command}\r\n".encode()


def _rcpt(recipient: Mailbox) -> bytes:
    return f"RCPT TO:<{recipient}>\r\n".encode()
