"""Serving: uvicorn in our event loop and TaskGroup, on sockets that others have bound.

It takes no signals and writes no log of requests; what it refuses by itself is refused as the rest is.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from smtpguard.sockets import ListeningSocket
from smtpguard.web.problems import MEDIA_TYPE, of_status

MAX_CONNECTIONS = 256
"""Of one process; who comes then is hung up on."""
MAX_HEADER_OCTETS = 16_384
HEADER_SECONDS = 10.0
"""For the header of a request, from its first octet or the beginning of the connection on."""
KEEP_ALIVE_SECONDS = 15


class WebServer:
    """Applications, each on sockets of its own."""

    def __init__(self, *, shutdown_timeout: float, proxies: Sequence[str]) -> None:
        self._shutdown_timeout = shutdown_timeout
        self._proxies = proxies
        self._servers: list[_Server] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def serve(
        self,
        application: ASGIApp,
        sockets: Iterable[ListeningSocket],
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    ) -> None:
        """Begin to serve an application; the sockets are closed with the server."""
        sockets = tuple(sockets)
        server = _Server(_config(application, self._shutdown_timeout, self._proxies))
        self._servers.append(server)
        self._tasks.append(spawn(server.serve(sockets=[each.socket for each in sockets])))

    async def close(self) -> None:
        """Stop listening, and let what has been asked be answered, for ``shutdown_timeout`` at most."""
        for server in self._servers:
            server.should_exit = True
        if self._tasks:
            await asyncio.wait(self._tasks)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them to whoever runs the guard."""
        yield


class _Connection(H11Protocol):
    """A connection whose requests have to come in time."""

    _deadline: asyncio.TimerHandle | None = None
    _is_admitted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or hang up."""
        if len(self.connections) >= MAX_CONNECTIONS:
            transport.abort()
            return
        self._is_admitted = True
        super().connection_made(transport)
        self._expect_header()

    def data_received(self, data: bytes) -> None:
        """Take octets; the first ones of a request begin its time."""
        if not self._is_admitted:
            return
        super().data_received(data)
        if self._is_idle:
            self._expect_header()
        else:
            self._expect_nothing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._expect_nothing()
        if self._is_admitted:
            super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        del msg
        problem = of_status(400)
        headers = [("content-type", MEDIA_TYPE), ("content-length", str(len(problem.body))), ("connection", "close")]
        for event in (
            h11.Response(status_code=problem.status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=problem.body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_header(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._hang_up)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        self._deadline = None
        if self._is_idle:
            self.transport.close()


def _config(application: ASGIApp, shutdown_timeout: float, proxies: Sequence[str]) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=_Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",  # what a client did wrong is no news
        access_log=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_OCTETS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(shutdown_timeout)),
    )
