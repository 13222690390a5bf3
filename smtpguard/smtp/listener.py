"""The listeners: where applications connect, and how the last of them leaves."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from smtpguard.domain.application import Application
from smtpguard.domain.reply import R421_TOO_MANY_SESSIONS
from smtpguard.errors import SettingsError
from smtpguard.service.accept import Acceptor
from smtpguard.settings import Endpoint, SmtpSettings
from smtpguard.smtp.session import CLOSE_GRACE_SECONDS, GuardSMTP, SessionContext
from smtpguard.telemetry import Event, Logger

BACKLOG = 1024


class SmtpServer:
    """All listeners and their sessions."""

    def __init__(
        self,
        settings: SmtpSettings,
        applications: tuple[Application, ...],
        acceptor: Acceptor,
        *,
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        logger: Logger,
    ) -> None:
        self._settings = settings
        self._context = SessionContext(settings, applications, acceptor, spawn, logger)
        self._servers: list[asyncio.Server] = []

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it listens, with the ports that the system chose where 0 was asked for."""
        return tuple(Endpoint(*socket.getsockname()[:2]) for server in self._servers for socket in server.sockets)

    async def start(self) -> None:
        """Begin to listen. Raises SettingsError where an endpoint cannot be had; then none is listened on."""
        loop = asyncio.get_running_loop()
        for endpoint in self._settings.listen:
            try:
                server = await loop.create_server(
                    lambda: self._session(loop), endpoint.host, endpoint.port, backlog=BACKLOG
                )
            except OSError as error:
                self._stop_listening()
                raise SettingsError(f"smtp.listen: {endpoint}: {error.strerror or error}") from error
            self._servers.append(server)

    async def close(self) -> None:
        """Stop listening and end every session; one that is past its end of data gets its reply first.

        Sessions that are still there after ``shutdown_timeout`` are cut off.
        """
        self._stop_listening()
        for session in tuple(self._context.sessions):
            session.close_gracefully()
        try:
            async with asyncio.timeout(self._settings.shutdown_timeout):
                await self._all_ended()
        except TimeoutError:
            for session in tuple(self._context.sessions):
                session.abort()
            await self._all_ended()

    def _session(self, loop: asyncio.AbstractEventLoop) -> asyncio.BaseProtocol:
        if len(self._context.sessions) >= self._settings.max_sessions:
            return _Refusal(self._context.logger)
        return GuardSMTP(self._context, loop=loop)

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()

    async def _all_ended(self) -> None:
        while self._context.sessions:
            self._context.all_ended.clear()
            await self._context.all_ended.wait()


class _Refusal(asyncio.Protocol):
    """A session too many: told so, and closed, before it costs anything."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._logger.warning(Event.SESSION_REFUSED, peer=peer[0] if peer else None, why="too many sessions")
        transport.write(f"{R421_TOO_MANY_SESSIONS}\r\n".encode("ascii"))
        transport.close()
        asyncio.get_running_loop().call_later(CLOSE_GRACE_SECONDS, transport.abort)
