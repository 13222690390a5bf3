"""GuardSMTP: one session with an application; here are the commands of a transaction."""

import asyncio

from aiosmtpd.smtp import syntax

from smtpguard.domain.application import Application, Origin, protocol_keyword
from smtpguard.domain.envelope import MailParameters
from smtpguard.domain.reply import (
    R250_CHUNK,
    R250_OK,
    R250_SENDER_OK,
    R252_CANNOT_VERIFY,
    R354_SEND,
    R421_ABORTED,
    R421_TOO_SLOW,
    R450_TOO_FAST,
    R452_STORE_FULL,
    R452_TOO_MANY_RECIPIENTS,
    R501_SYNTAX,
    R503_BAD_SEQUENCE,
    R503_EHLO_FIRST,
    R530_AUTH_FIRST,
    R550_SENDER_NOT_ALLOWED,
    R554_NO_VALID_RECIPIENTS,
    R554_NOT_ALLOWED,
    Reply,
)
from smtpguard.smtp.commands import CommandError, parse_bdat, parse_mail, parse_rcpt
from smtpguard.smtp.context import SessionContext
from smtpguard.smtp.data import ChunkedIntake, ConnectionEndedError, read_chunk, read_data
from smtpguard.smtp.greeting import Greeting
from smtpguard.smtp.tls import describe
from smtpguard.spool import WireMessage
from smtpguard.telemetry import Event


class GuardSMTP(Greeting):
    """One session."""

    def __init__(self, context: SessionContext, *, loop: asyncio.AbstractEventLoop, implicit_tls: bool) -> None:
        self._smtputf8 = False
        """Whether MAIL asked for it."""
        self._chunked: tuple[WireMessage, ChunkedIntake] | None = None
        """The message that comes by BDAT."""
        self._origin_facts: tuple[object, ...] = ()
        self._last_origin: Origin
        self._data_began = 0.0
        self._data_octets = 0
        self._normalizes = context.settings.bare_line_feeds == "normalize"
        super().__init__(context, loop=loop, implicit_tls=implicit_tls)

    @syntax("MAIL FROM:<address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> Reply:
        """RFC 5321 4.1.1.2: begins a transaction."""
        if not self.session.host_name:
            return R503_EHLO_FIRST
        return R503_BAD_SEQUENCE if self._transaction else self._begin(arg or "")

    @syntax("RCPT TO:<address>", extended=" [SP <rcpt-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> Reply:
        """RFC 5321 4.1.1.3: one recipient, checked at once."""
        if not self.session.host_name:
            return R503_EHLO_FIRST
        if self._application is None:
            self._context.logger.warning(Event.SESSION_REFUSED, peer=self._peer, why="no application")
            return R530_AUTH_FIRST if self._offers_auth else R554_NOT_ALLOWED
        if self._transaction is None or self._chunked is not None:
            return R503_BAD_SEQUENCE
        try:
            recipient, parameters = parse_rcpt(
                arg or "", offered=self._extensions, extended=self.session.extended_smtp, smtputf8=self._smtputf8
            )
        except CommandError as error:
            return error.reply
        if self._transaction.offer_count >= self._context.settings.max_recipients:
            return R452_TOO_MANY_RECIPIENTS
        self._clock.stop()
        return await self._transaction.add_recipient(recipient, parameters)

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> Reply:
        """RFC 5321 4.1.1.4."""
        if not self.session.host_name:
            return R503_EHLO_FIRST
        refusal = R501_SYNTAX if arg else self._data_refusal()
        if refusal is not None:
            return refusal
        self._say(R354_SEND)
        self._clock.reset()
        self._data_began, self._data_octets = self.loop.time(), 0
        message = self._context.acceptor.spool.message()
        try:
            refusal = await read_data(
                self._input,
                message,
                limit=self._extensions.size,
                on_progress=self._note_progress,
                normalizes=self._normalizes,
            )
        except BaseException as error:
            message.close()
            self._end_if_lost_within(error)
            raise
        return await self._end_of_data(message, refusal)

    @syntax("BDAT <octets> [LAST]")
    async def smtp_BDAT(self, arg: str | None) -> Reply:
        """RFC 3030: the chunk is read whatever the reply."""
        try:
            octets, last = parse_bdat(arg or "")
        except CommandError as error:
            self._hang_up(error.reply)  # nobody knows where the chunk ends and the next command begins
        self._clock.reset()
        if self._chunked is None:
            self._data_began, self._data_octets = self.loop.time(), 0
        refusal = self._bdat_refusal()
        if refusal is None and self._chunked is None:
            message = self._context.acceptor.spool.message()
            intake = ChunkedIntake(message, limit=self._extensions.size, normalizes=self._normalizes)
            self._chunked = message, intake
        kept = None if refusal or self._chunked is None else self._chunked[1]
        try:
            too_big = await read_chunk(self._input, octets, kept, last=last, on_progress=self._note_progress)
        except Exception as error:
            self._end_if_lost_within(error)
            raise
        return await self._end_of_chunk(octets, refusal or too_big, last=last)

    @syntax("RSET")
    async def smtp_RSET(self, arg: str | None) -> Reply:
        """RFC 5321 4.1.1.5."""
        if arg:
            return R501_SYNTAX
        self._set_rset_state()
        return R250_OK

    @syntax("VRFY <address>")
    async def smtp_VRFY(self, arg: str | None) -> Reply:
        """RFC 5321 3.5.3: nobody learns here what the address book knows."""
        return R252_CANNOT_VERIFY if arg else R501_SYNTAX

    # MAIL

    def _begin(self, arg: str) -> Reply:
        try:
            reverse_path, parameters, size = parse_mail(
                arg, offered=self._extensions, extended=self.session.extended_smtp
            )
        except CommandError as error:
            return error.reply
        application = self._application
        if application is None:  # it hears at RCPT that it may not submit
            return R250_SENDER_OK
        if not application.may_send_as(reverse_path):
            return R550_SENDER_NOT_ALLOWED
        if not self._context.rates.admits(application):
            return R450_TOO_FAST
        origin = self._origin(application, parameters)
        self._transaction = self._context.acceptor.begin(origin, reverse_path, parameters, size=size)
        self._smtputf8 = parameters.smtputf8
        return R250_SENDER_OK

    def _origin(self, application: Application, parameters: MailParameters) -> Origin:
        """Return the origin of a transaction; a session has the same one most of the time."""
        session = self.session
        utf8 = parameters.smtputf8
        facts = (application, self._login, self._peer, session, session.host_name, session.extended_smtp, utf8)
        if facts != self._origin_facts:
            self._origin_facts = facts
            self._last_origin = self._new_origin(application, smtputf8=utf8)
        return self._last_origin

    def _new_origin(self, application: Application, *, smtputf8: bool) -> Origin:
        tls = self._tls_protocol is not None
        return Origin(
            application=application,
            peer=self._peer,
            helo=self.session.host_name or "",
            protocol=protocol_keyword(
                extended=self.session.extended_smtp,
                smtputf8=smtputf8,
                tls=tls,
                authenticated=self._login is not None,
            ),
            tls=describe(self._output) if tls else "",
        )

    # The message

    def _data_refusal(self) -> Reply | None:
        if self._transaction is None or self._chunked is not None:
            return R503_BAD_SEQUENCE
        if not self._transaction.has_recipients:
            return R554_NO_VALID_RECIPIENTS if self._transaction.offer_count else R503_BAD_SEQUENCE
        return R452_STORE_FULL if self._context.acceptor.spool.is_full else None

    def _bdat_refusal(self) -> Reply | None:
        return self._data_refusal() if self._chunked is None else None

    async def _end_of_chunk(self, octets: int, refusal: Reply | None, *, last: bool) -> Reply:
        if refusal is not None:  # what follows is out of sequence (RFC 3030 2)
            return self._refuse(self._chunked[0] if self._chunked else None, refusal)
        if last and self._chunked is not None:
            message, _ = self._chunked
            self._chunked = None
            return await self._end_of_data(message, None)
        return R250_CHUNK.with_text(f"{octets} octets received")

    async def _end_of_data(self, message: WireMessage, refusal: Reply | None) -> Reply:
        """Carry the end of data out; meanwhile nobody who vanishes ends the session's task."""
        transaction = self._transaction
        if refusal is not None or transaction is None:
            return self._refuse(message, refusal or R503_BAD_SEQUENCE)
        self._transaction = None
        self._finishing = True
        self._clock.stop()
        try:
            reply = await transaction.end_of_data(message, client_gone=self._is_gone)
        finally:
            self._finishing = False
        if reply.is_positive:
            self._replies = self._errors = 0
        return reply

    def _is_gone(self) -> bool:
        return self._gone

    def _end_if_lost_within(self, error: BaseException) -> None:
        """Hang up where nobody knows how much of a message was read: the rest of it must not be taken for commands."""
        if isinstance(error, Exception) and not isinstance(error, ConnectionEndedError):
            self._context.logger.error(Event.SESSION_FAILED, peer=self._peer, exc_info=error)
            self._hang_up(R421_ABORTED)

    def _refuse(self, message: WireMessage | None, refusal: Reply) -> Reply:
        """End the transaction with a message that could not be taken; return the refusal."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None and transaction.has_recipients:
            self._context.spawn(transaction.refuse(refusal, why="" if message is None else message.failure))
        elif transaction is not None:
            self._context.spawn(transaction.abort())
        if message is not None:
            message.close()
        self._drop_transaction()
        return refusal

    def _drop_transaction(self) -> None:
        super()._drop_transaction()
        if self._chunked is not None:
            self._chunked[0].close()
            self._chunked = None

    def _note_progress(self, octets: int) -> None:
        """Give a message that comes the time for more; hang up on one that comes too slowly."""
        self._data_octets += octets
        settings = self._context.settings
        in_time = settings.idle_timeout + self._data_octets / settings.min_data_rate
        seconds_left = self._data_began + in_time - self.loop.time()
        if seconds_left <= 0:
            self._hang_up(R421_TOO_SLOW)
        self._clock.reset(min(settings.idle_timeout, seconds_left))
