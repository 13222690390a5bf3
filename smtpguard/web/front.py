"""The outermost layer of every application: limits, security headers, the log line, and the answer to what fails.

A log line has the template of the route and never the path or the query, which come from outside.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPMethod, HTTPStatus
from typing import Any, cast

from litestar import Request, Response
from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPSendMessage, Message, Receive, Scope, Send

from smtpguard.telemetry import Event, Logger

MAX_REQUESTS = 64
"""At a time, in one process; more are answered 503, but for health: a guard is not ill because its API is busy."""
BODY_SECONDS = 30.0
"""For the whole body of a request."""
SEND_SECONDS = 30.0
"""How long a client may leave each piece of an answer untaken."""

SECURITY_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""What is said about every answer, where the application's own headers say nothing else."""

QUIET = frozenset({"/livez", "/readyz", "/metrics"})
"""What comes all the time."""
_METHODS = frozenset(method.value for method in HTTPMethod)


@dataclass(frozen=True, slots=True)
class Failure:
    """What is answered where the application gives no answer."""

    status: int
    media_type: str
    body: bytes


class Front:
    """An application behind its limits. ``failure`` gives the answer of this status."""

    def __init__(
        self,
        application: ASGIApp,
        logger: Logger,
        failure: Callable[[int], Failure],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._application = application
        self._logger = logger
        self._failure = failure
        self._headers = SECURITY_HEADERS | dict(headers or {})
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Nothing but a cancellation goes further."""
        began = time.monotonic()
        answer = _Answer(send, self._headers)
        self._running += 1
        try:
            await self._serve(scope, _in_time(receive), answer)
        except Exception as error:  # whatever it is, who asked hears a fixed text
            if not answer.is_abandoned:  # else uvicorn hangs up
                self._logger.error(Event.REQUEST_FAILED, route=_route(scope), exc_info=error)
                await answer.fail(self._failure(500))
        finally:
            self._running -= 1
            self._log(scope, answer.status, time.monotonic() - began)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if self._running > MAX_REQUESTS and scope["path"] not in QUIET:
            await answer.fail(self._failure(503), {"retry-after": "1"})
            return
        try:
            await self._application(scope, receive, answer.send)
        except _BodyTooSlow:
            await answer.fail(self._failure(408), {"connection": "close"})

    def _log(self, scope: Scope, status: int | None, seconds: float) -> None:
        known = cast("Mapping[str, Any]", scope)
        fields = {
            "method": known["method"] if known["method"] in _METHODS else "other",
            "route": _route(scope),
            "status": status,
            "seconds": round(seconds, 3),
            "peer": known["client"][0] if known["client"] else None,
            "token": known.get("auth"),
        }
        # Health checks and scrapes that went well are many and say nothing.
        log = self._logger.debug if fields["route"] in QUIET and status == HTTPStatus.OK else self._logger.info
        log(Event.REQUEST_ENDED, **{key: value for key, value in fields.items() if value is not None})


def leave_to_front(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Leave what Litestar would answer in its own words to the front."""
    del request
    raise error


class _BodyTooSlow(Exception):
    """The body did not come to its end in time."""


class _Answer:
    """What is sent, with our headers; ``status`` is None as long as nothing was."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send = send
        self._headers = headers
        self.status: int | None = None
        self.is_abandoned = False
        """Whether the client leaves it untaken."""

    async def send(self, message: Message) -> None:
        """Send a part of the answer. Raises TimeoutError where nobody takes it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [(name, value) for name, value in message["headers"] if name.decode() not in self._headers]
            ours = [(name.encode(), value.encode()) for name, value in self._headers.items()]
            message = {**message, "headers": [*headers, *ours]}
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            self.is_abandoned = True
            raise

    async def fail(self, failure: Failure, more: Mapping[str, str] | None = None) -> None:
        """Answer so, with ``more`` headers, if nothing has gone out; else uvicorn hangs up."""
        if self.status is not None:
            return
        body = failure.body
        headers = {"content-type": failure.media_type, "content-length": str(len(body)), **(more or {})}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        start = {"type": "http.response.start", "status": failure.status, "headers": encoded}
        await self.send(cast("HTTPSendMessage", start))
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


def _in_time(receive: Receive) -> Callable[[], Any]:
    """Have the body come within BODY_SECONDS, in all."""
    waited = 0.0

    async def receive_in_time() -> HTTPReceiveMessage:
        nonlocal waited
        began = time.monotonic()
        try:
            async with asyncio.timeout(BODY_SECONDS - waited):
                return cast("HTTPReceiveMessage", await receive())
        except TimeoutError:
            raise _BodyTooSlow from None
        finally:
            waited += time.monotonic() - began

    return receive_in_time


def _route(scope: Scope) -> str:
    """Return the template of the route; "-" where there is none."""
    return cast("Mapping[str, Any]", scope).get("path_template") or "-"
