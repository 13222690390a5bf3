"""The listeners: where applications connect, and how the last of them leaves."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import cast

from smtpguard.domain.reply import R421_TOO_MANY_SESSIONS
from smtpguard.settings import Endpoint
from smtpguard.smtp.connection import CLOSE_GRACE_SECONDS
from smtpguard.smtp.context import Admission, SessionContext
from smtpguard.smtp.session import GuardSMTP
from smtpguard.sockets import BACKLOG, ListeningSocket
from smtpguard.telemetry import Event, Logger


class SmtpServer:
    """All listeners and their sessions."""

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._settings = context.settings
        self._servers: list[asyncio.Server] = []

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it listens, in the order of the sockets."""
        return tuple(Endpoint(*socket.getsockname()[:2]) for server in self._servers for socket in server.sockets)

    async def start(self, sockets: Iterable[ListeningSocket]) -> None:
        """Begin to serve who connects there; the sockets are closed with the server."""
        loop = asyncio.get_running_loop()
        for each in sockets:
            protocol = partial(self._session, loop, implicit_tls=each.implicit_tls)
            self._servers.append(await loop.create_server(protocol, sock=each.socket, backlog=BACKLOG))

    def replace_admission(self, admission: Admission) -> None:
        """Let others in from now on; open sessions are asked again at their next transaction."""
        self._context.admission.logins.close()
        self._context.admission = admission

    async def close(self) -> None:
        """Stop listening and end every session; one that is past its end of data gets its reply first.

        Sessions that are still there after ``shutdown_timeout`` are cut off.
        """
        self._stop_listening()
        sessions = self._context.sessions
        for session in sessions.all():
            session.close_gracefully()
        try:
            async with asyncio.timeout(self._settings.shutdown_timeout):
                await sessions.wait_for_end()
        except TimeoutError:
            for session in sessions.all():
                session.abort()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_GRACE_SECONDS):
                    await sessions.wait_for_end()
        self._context.admission.logins.close()

    def _session(self, loop: asyncio.AbstractEventLoop, *, implicit_tls: bool) -> asyncio.BaseProtocol:
        if self._context.sessions.is_full:
            return _Refusal(self._context.logger, speaks=not implicit_tls)
        return GuardSMTP(self._context, loop=loop, implicit_tls=implicit_tls)

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()


class _Refusal(asyncio.Protocol):
    """A session too many: told so, where it can be without TLS, and closed before it costs anything."""

    def __init__(self, logger: Logger, *, speaks: bool) -> None:
        self._logger = logger
        self._speaks = speaks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._logger.warning(Event.SESSION_REFUSED, peer=peer[0] if peer else None, why="too many sessions")
        if self._speaks:
            transport.write(R421_TOO_MANY_SESSIONS.wire)
        transport.close()
        asyncio.get_running_loop().call_later(CLOSE_GRACE_SECONDS, transport.abort)
