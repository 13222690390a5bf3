"""GuardSMTP: one session with an application, over aiosmtpd's command loop.

aiosmtpd reads commands and keeps the sequence of a session; whatever touches an address, a message, a reply or a time
limit is done here instead. What the stock class would do, and why that will not do for a guard, stands in
docs/aiosmtpd.md.
"""

import asyncio
import collections
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP, Session, syntax

from smtpguard.domain.application import Application, Origin, find_application
from smtpguard.domain.reply import (
    R220_READY,
    R250_OK,
    R250_SENDER_OK,
    R252_CANNOT_VERIFY,
    R354_SEND,
    R421_IDLE,
    R421_SHUTTING_DOWN,
    R451_ABORTED,
    R452_TOO_MANY_RECIPIENTS,
    R501_SYNTAX,
    R502_NOT_IMPLEMENTED,
    R503_BAD_SEQUENCE,
    R552_TOO_BIG,
    R554_NO_VALID_RECIPIENTS,
    R554_NOT_ALLOWED,
    Reply,
    complete_reply,
)
from smtpguard.service.accept import Acceptor, Transaction
from smtpguard.settings import SmtpSettings
from smtpguard.smtp.commands import CommandError, parse_mail, parse_rcpt
from smtpguard.smtp.data import ConnectionEndedError, read_data
from smtpguard.telemetry import Event, Logger

MAX_COMMAND_OCTETS = 2048
"""RFC 5321 4.5.3.1.4 asks for 512, more with extensions; this is what Postfix takes."""
CLOSE_GRACE_SECONDS = 5.0
"""How long a peer that reads nothing may hold up the end of its session."""


@dataclass(frozen=True)
class SessionContext:
    """What all sessions share. ``spawn`` starts a task that outlives the session."""

    settings: SmtpSettings
    applications: tuple[Application, ...]
    acceptor: Acceptor
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    logger: Logger
    sessions: "set[GuardSMTP]" = field(default_factory=set)
    all_ended: asyncio.Event = field(default_factory=asyncio.Event)


class GuardSMTP(SMTP):
    """One session."""

    session: Session
    _handler_coroutine: asyncio.Task[None]
    _timeout_handle: asyncio.TimerHandle
    line_length_limit = MAX_COMMAND_OCTETS
    __ident__ = R220_READY.text

    def __init__(self, context: SessionContext, *, loop: asyncio.AbstractEventLoop) -> None:
        # An attribute of the instance hides the one of the class, which every new session of the stock class clears.
        self.command_size_limits = collections.defaultdict(lambda: MAX_COMMAND_OCTETS)
        self.command_size_limit = MAX_COMMAND_OCTETS
        self._context = context
        self._transaction: Transaction | None = None
        self._gone = False
        self._closing = False
        self._finishing = False
        self._application: Application | None = None
        self._peer = ""
        """The IP address of the application."""
        super().__init__(
            None,
            data_size_limit=context.settings.max_message_bytes,
            # Octets above 127 then reach our own parser, which answers with the proper code.
            enable_SMTPUTF8=True,
            hostname=context.settings.hostname,
            ident=R220_READY.text,
            timeout=context.settings.idle_timeout,
            loop=loop,
        )

    # The life of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the session: who is it?"""
        super().connection_made(transport)
        peername = transport.get_extra_info("peername")
        if peername:  # else: it is gone already
            self._peer = peername[0]
            self._application = find_application(self._context.applications, self._peer)
        self._context.sessions.add(self)
        self._handler_coroutine.add_done_callback(_retrieve)

    def connection_lost(self, error: Exception | None) -> None:
        """End the session; what is past the end of data goes on."""
        self._gone = True
        super().connection_lost(error)
        self._drop_transaction()
        self._context.sessions.discard(self)
        if not self._context.sessions:
            self._context.all_ended.set()

    def eof_received(self) -> bool | None:
        """Take the end of the input for the end of the session, unless a QUIT stands before it.

        RFC 5321 4.1.1.10: an application that ends without QUIT gives up what is under way. One that sent its last
        command and closed its side only is still listening.
        """
        if bytes(self._reader._buffer[-6:]).upper() == b"QUIT\r\n":  # type: ignore[attr-defined] # noqa: SLF001 - no public way to look
            return asyncio.StreamReaderProtocol.eof_received(self)
        self._gone = True
        return super().eof_received()

    def close_gracefully(self) -> None:
        """End the session with 421, after the reply to a message that is past its end of data."""
        self._closing = True
        if not self._finishing:
            self._close(R421_SHUTTING_DOWN)

    def abort(self) -> None:
        """End the session at once."""
        self._writer.transport.abort()

    def _timeout_cb(self) -> None:
        self._context.logger.info(Event.SESSION_TIMED_OUT, peer=self._peer)
        self._gone = True
        self._close(R421_IDLE)

    def _close(self, reply: Reply) -> None:
        """Close; a peer that does not read cannot keep the connection open."""
        if self.transport is None:
            return
        self._writer.write(_line(reply))
        self._writer.close()
        self.loop.call_later(CLOSE_GRACE_SECONDS, self._writer.transport.abort)

    @contextmanager
    def _unhurried(self) -> Iterator[None]:
        """Stop the idle timer: it is we who keep the application waiting."""
        self._timeout_handle.cancel()
        try:
            yield
        finally:
            if self.transport is not None:
                self._reset_timeout()

    # Replies and errors

    async def push(self, status: Reply | str | bytes | None) -> None:
        """Send a reply: ours, or a line of aiosmtpd's in our form."""
        if status is None:
            return
        if isinstance(status, str):
            status = complete_reply(status)
        self._writer.write(_line(status) if isinstance(status, Reply) else status)
        await self._writer.drain()

    async def handle_exception(self, error: Exception) -> Any:
        """Answer any failure with one fixed text; forget the transaction, so that no recipient outlives it."""
        if isinstance(error, asyncio.IncompleteReadError | ConnectionEndedError):
            self._writer.close()
            raise asyncio.CancelledError
        self._context.logger.error(Event.SESSION_FAILED, peer=self._peer, exc_info=error)
        self._set_rset_state()
        return R451_ABORTED

    def _set_rset_state(self) -> None:
        super()._set_rset_state()  # type: ignore[no-untyped-call]
        self._drop_transaction()

    def _drop_transaction(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._context.spawn(transaction.abort())

    # Commands

    @syntax("HELO hostname")
    async def smtp_HELO(self, hostname: str | None) -> None:
        """RFC 5321 4.1.1.1."""
        await self._greet(hostname, extended=False, extensions=())

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, hostname: str | None) -> None:
        """RFC 5321 4.1.1.1, with what is offered."""
        size = f"SIZE {self._context.settings.max_message_bytes}"
        extensions = ("PIPELINING", size, "8BITMIME", "ENHANCEDSTATUSCODES", "HELP")
        await self._greet(hostname, extended=True, extensions=extensions)

    async def _greet(self, hostname: str | None, *, extended: bool, extensions: tuple[str, ...]) -> None:
        if not hostname:
            await self.push(R501_SYNTAX)
            return
        self._set_rset_state()
        self.session.extended_smtp = extended
        self.session.host_name = hostname
        # RFC 2034 3: no enhanced codes here.
        lines = [self.hostname, *extensions]
        marks = ["-"] * (len(lines) - 1) + [" "]
        await self.push(
            "".join(f"250{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True)).encode("ascii")
        )

    @syntax("MAIL FROM:<address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        """RFC 5321 4.1.1.2: begins a transaction."""
        if await self.check_helo_needed():
            return
        await self.push(R503_BAD_SEQUENCE if self._transaction else self._begin(arg or ""))

    @syntax("RCPT TO:<address>", extended=" [SP <rcpt-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> None:
        """RFC 5321 4.1.1.3: one recipient, checked at once."""
        if await self.check_helo_needed():
            return
        await self.push(await self._add_recipient(arg or ""))

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        """RFC 5321 4.1.1.4."""
        if await self.check_helo_needed():
            return
        transaction = self._transaction
        if arg or transaction is None or not transaction.has_recipients:
            await self.push(self._data_refusal(arg))
            return
        await self.push(R354_SEND)
        wire = await read_data(
            self._reader, limit=self._context.settings.max_message_bytes, on_progress=self._reset_timeout
        )
        if wire is None:
            self._drop_transaction()
            await self.push(R552_TOO_BIG)
            return
        self._transaction = None
        await self._finish(transaction, wire)

    @syntax("RSET")
    async def smtp_RSET(self, arg: str | None) -> None:
        """RFC 5321 4.1.1.5."""
        if arg:
            await self.push(R501_SYNTAX)
            return
        self._set_rset_state()
        await self.push(R250_OK)

    @syntax("VRFY <address>")
    async def smtp_VRFY(self, arg: str | None) -> None:
        """RFC 5321 3.5.3: nobody learns here what the address book knows."""
        await self.push(R252_CANNOT_VERIFY if arg else R501_SYNTAX)

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: ARG002 - aiosmtpd's signature
        """Answer that there is no AUTH: aiosmtpd would offer mechanisms of its own."""
        await self.push(R502_NOT_IMPLEMENTED)

    # Steps of a transaction

    def _begin(self, arg: str) -> Reply:
        try:
            reverse_path, parameters, size = parse_mail(
                arg, max_size=self._context.settings.max_message_bytes, extended=self.session.extended_smtp
            )
        except CommandError as error:
            return error.reply
        if self._application is not None:  # else: it hears at RCPT that it may not submit
            origin = Origin(
                application=self._application,
                peer=self._peer,
                helo=self.session.host_name or "",
                protocol="ESMTP" if self.session.extended_smtp else "SMTP",
            )
            self._transaction = self._context.acceptor.begin(origin, reverse_path, parameters, size=size)
        return R250_SENDER_OK

    async def _add_recipient(self, arg: str) -> Reply:
        if self._application is None:
            self._context.logger.warning(Event.SESSION_REFUSED, peer=self._peer, why="no application")
            return R554_NOT_ALLOWED
        if self._transaction is None:
            return R503_BAD_SEQUENCE
        try:
            recipient = parse_rcpt(arg, extended=self.session.extended_smtp)
        except CommandError as error:
            return error.reply
        if self._transaction.offer_count >= self._context.settings.max_recipients:
            return R452_TOO_MANY_RECIPIENTS
        with self._unhurried():
            return await self._offer(self._transaction.add_recipient(recipient))

    async def _offer(self, offering: Coroutine[Any, Any, Reply]) -> Reply:
        """Await an answer; aiosmtpd takes a ConnectionResetError for the loss of its own peer."""
        try:
            return await offering
        except OSError as error:
            reply: Reply = await self.handle_exception(error)
            return reply

    def _data_refusal(self, arg: str | None) -> Reply:
        if arg:
            return R501_SYNTAX
        offered = self._transaction is not None and self._transaction.offer_count
        return R554_NO_VALID_RECIPIENTS if offered else R503_BAD_SEQUENCE

    async def _finish(self, transaction: Transaction, wire: bytearray) -> None:
        """Carry the end of data out in a task of its own, which no vanishing application can cancel."""
        self._finishing = True
        try:
            with self._unhurried():
                task = self._context.spawn(transaction.end_of_data(wire, client_gone=lambda: self._gone))
                reply = await asyncio.shield(task)
            await self.push(reply)
        finally:
            self._finishing = False
        if self._closing:
            self._close(R421_SHUTTING_DOWN)


def _line(reply: Reply) -> bytes:
    return f"{reply}\r\n".encode("ascii")


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the end of a session's task: a connection that is reset is no news."""
    if not task.cancelled():
        task.exception()
