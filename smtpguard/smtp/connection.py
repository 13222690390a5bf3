"""The connection of a session, from its first octet to its last: who is there, under which limits, and how it ends.

aiosmtpd reads commands and keeps the sequence of a session; whatever touches an address, a message, a reply or a time
limit is done in this folder instead. What the stock class would do, and why that will not do for a guard, stands in
docs/aiosmtpd.md.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from aiosmtpd.proxy_protocol import V2_CMD, get_proxy
from aiosmtpd.smtp import SMTP, Session

from smtpguard.domain.application import Application, ip_address_of
from smtpguard.domain.reply import (
    R220_READY,
    R421_IDLE,
    R421_SHUTTING_DOWN,
    R421_TOO_MANY_COMMANDS,
    R421_TOO_MANY_ERRORS,
    R421_TOO_MANY_SESSIONS,
    R421_TOO_OLD,
    R451_ABORTED,
    R500_UNKNOWN_COMMAND,
    R530_TLS_FIRST,
    Reply,
    complete_reply,
)
from smtpguard.service.accept import Acceptor, Transaction
from smtpguard.service.logins import Logins
from smtpguard.service.rates import Rates
from smtpguard.settings import IpNetwork, SmtpSettings
from smtpguard.smtp.data import ConnectionEndedError
from smtpguard.smtp.sessions import Sessions, network_of
from smtpguard.smtp.tls import TlsLayer, explain
from smtpguard.telemetry import Event, Logger

MAX_COMMAND_OCTETS = 2048
"""RFC 5321 4.5.3.1.4 asks for 512, more with extensions; this is what Postfix takes."""
MAX_AUTH_OCTETS = 12_288  # RFC 4954 4
ALLOWED_BEFORE_STARTTLS = frozenset({"EHLO", "NOOP", "STARTTLS", "QUIT"})  # RFC 3207 4
CLOSE_GRACE_SECONDS = 5.0
"""How long a peer that reads nothing may hold up the end of its session."""
PROXY_SECONDS = 10.0
"""How long a proxy may take for its header."""

_Method = Callable[[str | None], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Admission:
    """Who may submit, and what they are shown; replaced as a whole when the settings are read again."""

    applications: tuple[Application, ...]
    logins: Logins
    certificate: ssl.SSLContext | None
    tls_required: bool


@dataclass
class SessionContext:
    """What all sessions share. ``spawn`` starts a task that outlives the session."""

    settings: SmtpSettings
    acceptor: Acceptor
    admission: Admission
    rates: Rates
    sessions: "Sessions[Connection]"
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    logger: Logger


class Connection(SMTP):
    """A session as a connection."""

    session: Session
    _handler_coroutine: asyncio.Task[None]
    _timeout_handle: asyncio.TimerHandle
    line_length_limit = MAX_AUTH_OCTETS
    __ident__ = R220_READY.text

    def __init__(self, context: SessionContext, *, loop: asyncio.AbstractEventLoop, implicit_tls: bool) -> None:
        # An attribute of the instance hides the one of the class, which every new session of the stock class clears.
        self.command_size_limits = _CommandSizes()
        self.command_size_limit = MAX_COMMAND_OCTETS
        self._context = context
        self._implicit_tls = implicit_tls
        self._transaction: Transaction | None = None
        self._gone = False
        self._closing = False
        self._finishing = False
        self._greeted = False
        self._old = False
        self._is_one_too_many = False
        self._may_xclient = False
        self._peer = ""
        """The IP address of the application."""
        self._network = ""
        """What it is counted under."""
        self._commands = 0
        self._errors = 0
        self._age_timer: asyncio.TimerHandle | None = None
        super().__init__(
            None,
            # Octets above 127 then reach our own parser, which answers with the proper code.
            enable_SMTPUTF8=True,
            hostname=context.settings.hostname,
            ident=R220_READY.text,
            timeout=context.settings.idle_timeout,
            loop=loop,
        )
        self._smtp_methods = _Commands(self._smtp_methods, self._choose)

    # The beginning

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the session, or go on with it under TLS."""
        super().connection_made(transport)
        if self._tls_protocol is not None:
            return
        peername = transport.get_extra_info("peername")
        self._peer = peername[0] if peername else ""  # "": it is gone already
        self._is_one_too_many = self._context.sessions.is_full  # many may have been let in at once
        self._context.sessions.add(self)
        self._age_timer = self.loop.call_later(self._context.settings.max_session_age, self._grow_old)
        self._handler_coroutine.add_done_callback(self._look_at_end)

    async def _handle_client(self) -> None:
        if not await self._arrive():
            return
        self._greeted = True
        await super()._handle_client()

    async def _arrive(self) -> bool:
        """Learn who is there, and whether there is room; then TLS, where it stands at the beginning."""
        if self._is_within(self._context.settings.proxy_networks) and not await self._read_proxy_header():
            self._refuse_session("no PROXY header", None)
            return False
        self._may_xclient = self._is_within(self._context.settings.xclient_networks)
        if self._is_one_too_many or not self._enter():
            self._refuse_session("too many sessions", None if self._implicit_tls else R421_TOO_MANY_SESSIONS)
            return False
        if self._implicit_tls:
            await self._start_tls()
        return True

    async def _read_proxy_header(self) -> bool:
        """Read the header of the PROXY protocol; a proxy that speaks for itself (LOCAL, UNKNOWN) keeps its address."""
        self._reset_timeout(PROXY_SECONDS)
        try:
            header = await get_proxy(self._reader)
        except (OSError, asyncio.IncompleteReadError):
            return False
        self._reset_timeout()
        if not header.valid:
            return False
        if header.command != V2_CMD.LOCAL and ip_address_of(str(header.src_addr)) is not None:
            self._peer = str(header.src_addr)
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
        address = ip_address_of(self._peer)
        return address is not None and any(address in network for network in networks)

    async def _start_tls(self) -> None:
        """Put TLS between the session and its socket; the session begins anew behind it (RFC 3207 4.2)."""
        certificate = self._context.admission.certificate
        assert certificate is not None  # noqa: S101 - the settings see to it
        hello = bytes(self._reader._buffer)  # type: ignore[attr-defined] # noqa: SLF001 - came with the PROXY header
        socket_transport = cast("asyncio.Transport", self.transport)
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
        if self.transport is None:  # a handshake that failed has been here already
            return
        self._gone = True
        super().connection_lost(error)
        if self._age_timer is not None:
            self._age_timer.cancel()
        if self._network:
            self._context.sessions.leave(self._network)
            self._network = ""
        self._context.sessions.discard(self)
        self._drop_transaction()

    def eof_received(self) -> bool | None:
        """Take the end of the input for the end of the session, unless a QUIT stands before it.

        RFC 5321 4.1.1.10: an application that ends without QUIT gives up what is under way. One that sent its last
        command and closed its side only is still listening; under TLS there is no such half-close.
        """
        quit_is_last = bytes(self._reader._buffer[-6:]).upper() == b"QUIT\r\n"  # type: ignore[attr-defined] # noqa: SLF001 - no public way to look
        if quit_is_last and self._tls_protocol is None:
            return asyncio.StreamReaderProtocol.eof_received(self)
        self._gone = True
        return super().eof_received()

    def close_gracefully(self) -> None:
        """End the session with 421, after the reply to a message that is past its end of data."""
        self._closing = True
        if not self._finishing:
            self._close(R421_SHUTTING_DOWN)

    def abort(self) -> None:
        """End the session at once: a TLS transport that is closing cannot be aborted, its socket can."""
        transport = self._original_transport or self._writer.transport
        cast("asyncio.Transport", transport).abort()

    def _timeout_cb(self) -> None:
        self._context.logger.info(Event.SESSION_TIMED_OUT, peer=self._peer)
        self._gone = True
        self._close(R421_IDLE)

    def _grow_old(self) -> None:
        """End a session that is old: between two transactions, or after as long as a silence may last."""
        if self._finishing:
            self._old = True
        elif self._old or self._transaction is None:
            self._close(R421_TOO_OLD)
        else:
            self._old = True
            self._age_timer = self.loop.call_later(self._context.settings.idle_timeout, self._grow_old)

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
            self._write(line_of(reply))
        self._writer.close()
        self.loop.call_later(CLOSE_GRACE_SECONDS, self.abort)

    def _look_at_end(self, task: asyncio.Task[None]) -> None:
        """Look at the end of the session's task: a connection that is reset is no news."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self._context.logger.error(Event.SESSION_FAILED, peer=self._peer, exc_info=error)
        self._writer.close()

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
        self._write(line_of(status) if isinstance(status, Reply) else status)
        self._count(is_error=isinstance(status, Reply) and status.is_protocol_error)
        await self._writer.drain()

    def _choose(self, name: str, method: _Method | None) -> _Method:
        """Return what carries a command out, or refuses it."""
        if self._context.admission.tls_required and self._tls_protocol is None and name not in ALLOWED_BEFORE_STARTTLS:
            return self._refuse_before_tls if name != "BDAT" else self._hang_up_before_tls
        return method or self._refuse_unknown

    async def _refuse_before_tls(self, arg: str | None) -> None:
        del arg
        await self.push(R530_TLS_FIRST)

    async def _hang_up_before_tls(self, arg: str | None) -> None:
        del arg
        self._hang_up(R530_TLS_FIRST)  # a chunk follows, which is not to be taken for commands

    async def _refuse_unknown(self, arg: str | None) -> None:
        del arg
        await self.push(R500_UNKNOWN_COMMAND)

    def _write(self, octets: bytes) -> None:
        if not self._writer.is_closing():  # a TLS transport that is closed fails here
            self._writer.write(octets)

    def _count(self, *, is_error: bool) -> None:
        """Count a reply, and hang up on a session that has had enough of them."""
        self._commands += 1
        self._errors += is_error
        if self._errors > self._context.settings.max_errors:
            self._hang_up(R421_TOO_MANY_ERRORS)
        if self._commands > self._context.settings.max_commands:
            self._hang_up(R421_TOO_MANY_COMMANDS)
        if self._old and self._transaction is None and not self._finishing:
            self._hang_up(R421_TOO_OLD)

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


class _Commands(dict[str, Any]):
    """The commands, as the stock loop looks them up."""

    def __init__(self, known: dict[str, Any], choose: Callable[[str, _Method | None], _Method]) -> None:
        super().__init__(known)
        self._choose = choose

    def get(self, name: str, default: Any = None) -> _Method:
        """Return what carries the command out, or refuses it: an unknown one as well."""
        return self._choose(name, super().get(name, default))


class _CommandSizes(dict[str, int]):
    """How long a line each command may have. Nothing is stored: the stock loop asks for whatever verb comes."""

    def __missing__(self, name: str) -> int:
        return MAX_AUTH_OCTETS if name in {"AUTH", "BDAT"} else MAX_COMMAND_OCTETS


def line_of(reply: Reply) -> bytes:
    """Return a reply as it goes over the wire."""
    return f"{reply}\r\n".encode("ascii")
