"""The commands by which a session says who it is: HELO, EHLO, STARTTLS, AUTH, XCLIENT."""

import asyncio
from functools import lru_cache

from aiosmtpd.smtp import syntax

from smtpguard.domain.application import Application, find_application, find_login
from smtpguard.domain.reply import (
    R220_TLS,
    R221_BYE,
    R235_LOGGED_IN,
    R421_PIPELINED_TLS,
    R421_TOO_MANY_LOGINS,
    R421_TOO_MANY_SESSIONS,
    R454_LOGINS_BUSY,
    R500_AUTH_TOO_LONG,
    R501_SYNTAX,
    R502_NOT_IMPLEMENTED,
    R503_BAD_SEQUENCE,
    R503_EHLO_FIRST,
    R535_LOGIN_FAILED,
    R538_TLS_FOR_AUTH,
    R550_XCLIENT_NOT_ALLOWED,
    Reply,
    challenge,
)
from smtpguard.service.logins import LoginsBusy
from smtpguard.smtp.commands import CommandError
from smtpguard.smtp.connection import MAX_AUTH_OCTETS, Connection
from smtpguard.smtp.context import Admission, SessionContext
from smtpguard.smtp.extensions import REMEMBERED, Extensions, offer, without_extensions
from smtpguard.smtp.sasl import exchange
from smtpguard.smtp.xclient import parse_xclient
from smtpguard.telemetry import Event


class Greeting(Connection):
    """A session up to the first transaction."""

    def __init__(self, context: SessionContext, *, loop: asyncio.AbstractEventLoop, implicit_tls: bool) -> None:
        self._login: Application | None = None
        self._failed_logins = 0
        self._known_by: tuple[Admission, Application | None, str] | None = None
        self._known: Application | None = None
        self._extensions = without_extensions(None, max_message_bytes=context.settings.max_message_bytes)
        super().__init__(context, loop=loop, implicit_tls=implicit_tls)

    @property
    def _application(self) -> Application | None:
        """Who this is, by login or else by network, under the settings as they are now."""
        admission = self._context.admission
        known_by = (admission, self._login, self._peer)
        if known_by != self._known_by:
            self._known_by = known_by
            if self._login is not None:
                self._known = find_login(admission.applications, self._login.username)
            else:
                self._known = find_application(admission.applications, self._peer)
        return self._known

    @property
    def _offers_auth(self) -> bool:
        protected = self._tls_protocol is not None or self._context.settings.auth_without_tls
        return protected and self._context.admission.has_logins

    @property
    def _offers_starttls(self) -> bool:
        return self._context.admission.certificate is not None and self._tls_protocol is None

    @syntax("HELO hostname")
    async def smtp_HELO(self, hostname: str | None) -> Reply | bytes:
        """RFC 5321 4.1.1.1."""
        return await self._greet(hostname, extended=False)

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, hostname: str | None) -> Reply | bytes:
        """RFC 5321 4.1.1.1, with what is offered."""
        return await self._greet(hostname, extended=True)

    async def _greet(self, hostname: str | None, *, extended: bool) -> Reply | bytes:
        if not hostname:
            return R501_SYNTAX
        self._set_rset_state()
        self._extensions = await self._offer(extended=extended)
        self.session.extended_smtp = extended
        self.session.host_name = hostname
        return _who_we_are(self.hostname, self._extensions if extended else None)

    async def _offer(self, *, extended: bool) -> Extensions:
        max_message_bytes = self._context.settings.max_message_bytes
        self._clock.stop()
        smarthost = await self._context.acceptor.offers()
        if not extended:
            return without_extensions(smarthost, max_message_bytes=max_message_bytes)
        return offer(
            smarthost,
            max_message_bytes=max_message_bytes,
            starttls=self._offers_starttls,
            auth=self._offers_auth,
            xclient=self._may_xclient,
        )

    @syntax("STARTTLS")
    async def smtp_STARTTLS(self, arg: str | None) -> Reply | None:
        """RFC 3207: nothing that was said before it counts behind it."""
        refusal = self._starttls_refusal(arg)
        if refusal is not None:
            return refusal
        if self._input.pending:
            self._hang_up(R421_PIPELINED_TLS)
        # Written without waiting: what comes in from here on belongs to TLS.
        self._output.write(R220_TLS.wire)
        self._login = None
        self._clock.reset()
        await self._start_tls()
        return None

    def _starttls_refusal(self, arg: str | None) -> Reply | None:
        if self._tls_protocol is not None:
            return R503_BAD_SEQUENCE
        if not self._offers_starttls:
            return R502_NOT_IMPLEMENTED
        return R501_SYNTAX if arg else None

    @syntax("QUIT")
    async def smtp_QUIT(self, arg: str | None) -> Reply:
        """RFC 5321 4.1.1.10: nothing that was sent behind it is carried out."""
        if arg:
            return R501_SYNTAX
        await self.push(R221_BYE)
        self._output.close()
        raise asyncio.CancelledError

    @syntax("AUTH <mechanism>")
    async def smtp_AUTH(self, arg: str | None) -> Reply | None:
        """RFC 4954."""
        if not self.session.host_name:
            return R503_EHLO_FIRST
        refusal = self._auth_refusal(arg)
        if refusal is None:
            try:
                refusal = await self._log_in(arg or "")
            except CommandError as error:
                refusal = error.reply
        await self.push(refusal or R235_LOGGED_IN)
        if self._failed_logins >= self._context.settings.max_auth_failures:
            self._hang_up(R421_TOO_MANY_LOGINS)
        return None

    def _auth_refusal(self, arg: str | None) -> Reply | None:
        if not self._context.admission.has_logins:
            return R502_NOT_IMPLEMENTED
        if not self._offers_auth:
            return R538_TLS_FOR_AUTH
        if not self.session.extended_smtp or self._login is not None or self._transaction is not None:
            return R503_BAD_SEQUENCE
        return None if arg else R501_SYNTAX

    async def _log_in(self, arg: str) -> Reply | None:
        """Return the refusal, if any. Raises CommandError."""
        mechanism, _, initial = arg.partition(" ")
        credentials = await exchange(mechanism, initial.strip(" ") or None, self._ask)
        logins = self._context.admission.logins
        try:
            self._clock.stop()
            application = await logins.check(credentials.username, credentials.password, network=self._network)
        except LoginsBusy as error:
            self._log_failed_login(credentials.username, str(error))
            return R454_LOGINS_BUSY
        if self._context.admission.logins is not logins:  # replaced meanwhile: it may be another password now
            return R454_LOGINS_BUSY
        if application is None:
            self._failed_logins += 1
            self._log_failed_login(credentials.username, "wrong name or password")
            return R535_LOGIN_FAILED
        self._login = application
        return None

    def _log_failed_login(self, username: str, why: str) -> None:
        self._context.logger.warning(Event.LOGIN_FAILED, peer=self._peer, username=username[:100], why=why)

    async def _ask(self, octets: bytes) -> str:
        """Send a challenge, and return what the application answers (RFC 4954 4). Raises CommandError."""
        await self.push(challenge(octets))
        self._clock.reset()
        line = await self._input.line(MAX_AUTH_OCTETS)
        if line is None:
            raise CommandError(R500_AUTH_TOO_LONG)
        return line.rstrip(b"\r\n").decode("ascii", "replace")

    @syntax("XCLIENT attribute=value")
    async def smtp_XCLIENT(self, arg: str | None) -> Reply:
        """Take a trusted mail server's word for who the application is; the session begins anew."""
        if not self._may_xclient:
            return R550_XCLIENT_NOT_ALLOWED
        if self._transaction is not None:
            return R503_BAD_SEQUENCE
        try:
            said = parse_xclient(arg or "")
        except CommandError as error:
            return error.reply
        self._peer = said.address or self._peer
        if not self._enter():
            self._hang_up(R421_TOO_MANY_SESSIONS)
        if said.login is not None:
            self._login = find_login(self._context.admission.applications, said.login)
        self._set_rset_state()
        self.session.host_name = None
        return self._context.greeting


@lru_cache(REMEMBERED)
def _who_we_are(hostname: str, offered: Extensions | None) -> bytes:
    """Return the reply to EHLO, to HELO where nothing is offered. RFC 2034 3: no enhanced codes here."""
    lines = [hostname, *(offered.lines() if offered else ())]
    marks = ["-"] * (len(lines) - 1) + [" "]
    return "".join(f"250{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True)).encode("ascii")
