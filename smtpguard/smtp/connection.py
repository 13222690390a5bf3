"""The connection of a session, from its first octet to its last: who is there, under which limits, and how it ends.

What aiosmtpd's class would do, and why much of that will not do for a guard, stands in docs/aiosmtpd.md.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn, cast

from aiosmtpd.smtp import SMTP, Session, syntax

from smtpguard.domain.application import ip_address_of, network_of
from smtpguard.domain.reply import (
    R421_IDLE,
    R421_SHUTTING_DOWN,
    R421_TOO_MANY_COMMANDS,
    R421_TOO_MANY_ERRORS,
    R421_TOO_MANY_SESSIONS,
    R421_TOO_OLD,
    R451_ABORTED,
    R500_BAD_SYNTAX,
    R500_LINE_TOO_LONG,
    R500_UNKNOWN_COMMAND,
    R530_TLS_FIRST,
    Reply,
    complete_reply,
)
from smtpguard.service.accept import Transaction
from smtpguard.settings import IpNetwork
from smtpguard.smtp.clock import Clock
from smtpguard.smtp.context import SessionContext
from smtpguard.smtp.data import ConnectionEndedError
from smtpguard.smtp.input import Input
from smtpguard.smtp.proxy import ProxyHeaderError, said_by_proxy
from smtpguard.smtp.tls import TlsLayer, explain
from smtpguard.telemetry import Event

MAX_COMMAND_OCTETS = 2048
"""RFC 5321 4.5.3.1.4 asks for 512, more with extensions; this is what Postfix takes."""
MAX_AUTH_OCTETS = 12_288  # RFC 4954 4
_LONG_COMMANDS = frozenset({b"AUTH", b"BDAT"})
ALLOWED_BEFORE_STARTTLS = frozenset({b"EHLO", b"NOOP", b"STARTTLS", b"QUIT"})  # RFC 3207 4
CLOSE_GRACE_SECONDS = 5.0
"""How long a peer that reads nothing may hold up the end of its session."""
PROXY_SECONDS = 10.0
"""How long a proxy may take for its header."""

Answer = Coroutine[Any, Any, Reply | bytes | None]
"""What carries out a command, and returns the reply; None where it has sent that itself, as the stock class does."""


class Connection(SMTP):
    """A session as a connection."""

    session: Session
    _handler_coroutine: asyncio.Task[None]
    _handle_hooks: dict[str, Callable[..., Any]] = {}  # noqa: RUF012 - as the stock class declares it
    """Services stand behind a session, and no handler of the stock class."""
    _auth_required = False
    """By the stock class: its HELP asks."""
    _commands: Mapping[bytes, Callable[[Any, str | None], Answer]]
    """Which method carries out which command."""

    def __init_subclass__(cls) -> None:
        names = {name for kind in cls.__mro__ for name in vars(kind) if name.startswith("smtp_")}
        cls._commands = {name.removeprefix("smtp_").encode(): getattr(cls, name) for name in names}

    def __init__(self, context: SessionContext, *, loop: asyncio.AbstractEventLoop, implicit_tls: bool) -> None:
        self._context = context
        self._implicit_tls = implicit_tls
        self._input = Input(loop)
        self._output: asyncio.Transport
        """What replies go to: the socket, and TLS as soon as it stands."""
        self._drained: asyncio.Future[None] | None = None
        """There while the kernel takes no more."""
        self._transaction: Transaction | None = None
        self._gone = False
        self._closing = False
        self._finishing = False
        self._greeted = False
        self._is_one_too_many = False
        self._may_xclient = False
        self._peer = ""
        """The IP address of the application."""
        self._network = ""
        """What it is counted under."""
        self._max_commands = context.settings.max_commands
        self._replies = 0
        self._errors = 0
        self._old = False
        self._clock = Clock(
            loop, idle_seconds=context.settings.idle_timeout, on_idle=self._grow_idle, on_old=self._grow_old
        )
        # What the stock class would set up, and of it only what its commands and ours look at: its own way costs more
        # than a command does, most of all for a reader that nobody reads from.
        self.loop = loop
        self.hostname = context.settings.hostname
        self.transport = None
        self._tls_protocol: TlsLayer | None = None
        self._original_transport: asyncio.Transport | None = None

    # The beginning

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the session, or go on with it under TLS: whatever was said before does not count (RFC 3207 4.2)."""
        self._output = self.transport = cast("asyncio.Transport", transport)
        self._input.come_from(self._output)
        self._set_rset_state()
        self.session = self._create_session()
        self.session.peer = peername = transport.get_extra_info("peername")
        if self._tls_protocol is not None:
            self.session.ssl = self._tls_protocol._extra  # noqa: SLF001 - as the stock class
            self._clock.reset()
            return
        self._peer = peername[0] if peername else ""  # "": it is gone already
        self._is_one_too_many = self._context.sessions.is_full  # many may have been let in at once
        self._context.sessions.add(self)
        self._clock.reset()
        self._clock.grow_old_in(self._context.settings.max_session_age)
        self._handler_coroutine = self._context.spawn(self._run())

    async def _run(self) -> None:
        try:
            if await self._arrive():
                await self._handle_client()
        except Exception as error:
            self._context.logger.error(Event.SESSION_FAILED, peer=self._peer, exc_info=error)
        finally:
            self._output.close()

    async def _handle_client(self) -> None:
        self._greeted = True
        await self.push(self._context.greeting)
        while not self._gone:
            try:
                reply = await self._carry_out(await self._input.line(MAX_AUTH_OCTETS))
            except Exception as error:  # noqa: BLE001 - every failure has an answer
                reply = await self.handle_exception(error)
            if reply is not None:
                self._say(reply)
            if self._drained is not None:
                await self._all_taken(self._drained)
            if self._closing:
                self._hang_up(R421_SHUTTING_DOWN)
            self._clock.reset()

    def _carry_out(self, line: bytes | None) -> Answer:
        """Return what carries out a command line; None stands for one that is far too long."""
        if line is None:
            return self._refuse_with(R500_LINE_TOO_LONG)
        line = line.rstrip(b"\r\n")
        verb, _, rest = line.partition(b" ")
        verb = verb.upper()
        if len(line) > MAX_COMMAND_OCTETS and not self._may_be_long(verb):
            return self._refuse_with(R500_LINE_TOO_LONG)
        if self._context.admission.tls_required and self._tls_protocol is None and verb not in ALLOWED_BEFORE_STARTTLS:
            return self._refuse_before_tls(verb)
        command = self._commands.get(verb)
        if command is None:
            return self._refuse_with(R500_UNKNOWN_COMMAND if verb and verb.isascii() else R500_BAD_SYNTAX)
        # Octets that are not UTF-8 reach our own parser, which answers with the proper code.
        return command(self, str(rest.strip(), "utf-8", "surrogateescape") if rest else None)

    def _may_be_long(self, verb: bytes) -> bool:
        return verb in _LONG_COMMANDS and self.session.extended_smtp

    async def _arrive(self) -> bool:
        """Learn who is there, and whether there is room; then TLS, where it stands at the beginning."""
        settings = self._context.settings
        if self._is_within(settings.proxy_networks) and not await self._read_proxy_header():
            self._refuse_session("no PROXY header", None)
            return False
        self._may_xclient = self._is_within(settings.xclient_networks)
        if self._is_one_too_many or not self._enter():
            self._refuse_session("too many sessions", None if self._implicit_tls else R421_TOO_MANY_SESSIONS)
            return False
        if self._implicit_tls:
            await self._start_tls()
        return True

    async def _read_proxy_header(self) -> bool:
        """Let a proxy say who is there; False where it does not say it as it should."""
        self._clock.reset(PROXY_SECONDS)
        try:
            self._peer = await said_by_proxy(self._input) or self._peer
        except ProxyHeaderError:
            return False
        self._clock.reset()
        return True

    def _enter(self) -> bool:
        """Be counted under the network of the peer, instead of the one before."""
        if self._network:
            self._context.sessions.leave(self._network)
        network = network_of(self._peer)
        entered = self._context.sessions.enter(network)
        self._network = network if entered else ""
        return entered

    def _refuse_session(self, why: str, reply: Reply | None) -> None:
        self._context.logger.warning(Event.SESSION_REFUSED, peer=self._peer, why=why)
        self._say_last(reply)

    def _is_within(self, networks: tuple[IpNetwork, ...]) -> bool:
        if not networks:
            return False
        address = ip_address_of(self._peer)
        return address is not None and any(address in network for network in networks)

    async def _start_tls(self) -> None:
        """Put TLS between the session and its socket; the session begins anew behind it (RFC 3207 4.2)."""
        certificate = self._context.admission.certificate
        assert certificate is not None  # noqa: S101 - the settings see to it
        hello = self._input.take()  # came with the PROXY header
        socket_transport = self._output
        layer = TlsLayer(self.loop, self, certificate)
        self._tls_protocol = layer
        self._original_transport = socket_transport
        socket_transport.set_protocol(layer)
        self.transport = layer.transport
        layer.connection_made(socket_transport)
        layer.feed(hello)
        try:
            await layer.handshake
        except OSError as error:  # ssl.SSLError is one
            self._context.logger.info(Event.SESSION_REFUSED, peer=self._peer, why=f"TLS: {explain(error)}")
        finally:
            if self.session.ssl is None:  # the layer does not tell the session about a handshake that failed
                socket_transport.abort()
                self.connection_lost(None)
        if self.session.ssl is None:
            raise asyncio.CancelledError

    # The end

    def connection_lost(self, error: Exception | None) -> None:
        """End the session; what is past the end of data goes on."""
        del error
        if self.transport is None:  # a handshake that failed has been here already
            return
        self.transport = None
        self._gone = True
        self._clock.cancel()
        if self._original_transport is not None:
            self._original_transport.close()
        if self._network:
            self._context.sessions.leave(self._network)
            self._network = ""
        self._context.sessions.discard(self)
        self.resume_writing()
        if not self._finishing:
            self._handler_coroutine.cancel()
        self._drop_transaction()

    def data_received(self, data: bytes) -> None:
        """Take what came in."""
        self._input.feed_data(data)

    def eof_received(self) -> bool:
        """Take the end of the input for the end of the session, unless a QUIT stands before it.

        RFC 5321 4.1.1.10: an application that ends without QUIT gives up what is under way. One that sent its last
        command and closed its side only is still listening; under TLS there is no such half-close.
        """
        if self._tls_protocol is None and self._input.last_is_quit:
            self._input.feed_eof()
            return True
        self._gone = True
        if not self._finishing:
            self._handler_coroutine.cancel()
            self._clock.reset()  # it may have been stopped; what was said is still to be read
        return False

    def pause_writing(self) -> None:
        """Note that the kernel takes no more for now."""
        self._drained = self.loop.create_future()

    def resume_writing(self) -> None:
        """Note that it does, or that nobody waits for it any more."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def close_gracefully(self) -> None:
        """End the session with 421, after the reply to a message that is past its end of data."""
        self._closing = True
        if not self._finishing:
            self._close(R421_SHUTTING_DOWN)

    def abort(self) -> None:
        """End the session at once: a TLS transport that is closing cannot be aborted, its socket can."""
        (self._original_transport or self._output).abort()

    def _close(self, reply: Reply | None) -> None:
        """Close, from outside the session's own task. A peer that does not read cannot keep the connection open."""
        if self.transport is None:
            return
        self._say_last(reply if self._greeted else None)
        self._handler_coroutine.cancel()

    def _hang_up(self, reply: Reply) -> NoReturn:
        """Close, from within the session's own task: no command that has come already is carried out."""
        self._say_last(reply)
        raise asyncio.CancelledError

    def _say_last(self, reply: Reply | None) -> None:
        if reply is not None:
            self._write(reply.wire)
        self._output.close()
        self.loop.call_later(CLOSE_GRACE_SECONDS, self.abort)

    def _grow_old(self) -> None:
        """End a session that is old: between two transactions, or after as long as a silence may last."""
        if self._finishing:
            self._old = True
        elif self._old or self._transaction is None:
            self._close(R421_TOO_OLD)
        else:
            self._old = True
            self._clock.grow_old_in(self._context.settings.idle_timeout)

    def _grow_idle(self) -> None:
        self._context.logger.info(Event.SESSION_TIMED_OUT, peer=self._peer)
        self._clock.stop()
        self._gone = True
        self._close(R421_IDLE)

    # Replies and errors

    async def push(self, status: Reply | str | bytes) -> None:
        """Send a reply in the middle of a command: ours, or a line of aiosmtpd's in our form."""
        self._say(complete_reply(status) if isinstance(status, str) else status)
        if self._drained is not None:
            await self._all_taken(self._drained)

    def _say(self, reply: Reply | bytes) -> None:
        """Send a reply; hang up on a session that has had enough of them."""
        if isinstance(reply, Reply):
            if reply.code >= 500:
                self._errors += reply.is_protocol_error
            reply = reply.wire
        self._write(reply)
        self._replies += 1
        if self._errors or self._old or self._replies > self._max_commands:
            self._hang_up_on_excess()

    async def _all_taken(self, drained: asyncio.Future[None]) -> None:
        """Wait for the kernel to take what was said."""
        self._clock.reset()  # now it is the application that keeps us waiting
        await drained

    @syntax("HELP [command]")
    async def smtp_HELP(self, arg: str | None) -> None:
        """RFC 5321 4.1.1.8: the stock class's, which wants to see the commands."""
        self._smtp_methods = {verb.decode(): method for verb, method in self._commands.items()}
        await super().smtp_HELP(arg)

    async def _refuse_with(self, reply: Reply) -> Reply:
        return reply

    async def _refuse_before_tls(self, verb: bytes) -> Reply:
        if verb == b"BDAT":  # a chunk follows, which is not to be taken for commands
            self._hang_up(R530_TLS_FIRST)
        return R530_TLS_FIRST

    def _write(self, octets: bytes) -> None:
        if not self._output.is_closing():  # a TLS transport that is closed fails here
            self._output.write(octets)

    def _hang_up_on_excess(self) -> None:
        """Hang up on a session that has had enough replies."""
        settings = self._context.settings
        if self._errors > settings.max_errors:
            self._hang_up(R421_TOO_MANY_ERRORS)
        if self._replies > self._max_commands:
            self._hang_up(R421_TOO_MANY_COMMANDS)
        if self._old and self._transaction is None and not self._finishing:
            self._hang_up(R421_TOO_OLD)

    async def handle_exception(self, error: Exception) -> Any:
        """Answer any failure with one fixed text; forget the transaction, so that no recipient outlives it."""
        if isinstance(error, asyncio.IncompleteReadError | ConnectionEndedError):
            self._output.close()
            raise asyncio.CancelledError
        self._context.logger.error(Event.SESSION_FAILED, peer=self._peer, exc_info=error)
        self._set_rset_state()
        return R451_ABORTED

    def _set_rset_state(self) -> None:
        self._drop_transaction()

    def _drop_transaction(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._context.spawn(transaction.abort())
