"""The application for other systems: the API, health and metrics, put together as Litestar serves them."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Method

from smtpguard.errors import SmtpguardError
from smtpguard.service.housekeeping import notice
from smtpguard.web import addresses, invitations, quarantine
from smtpguard.web.access import Access
from smtpguard.web.bare_litestar import BareLitestar
from smtpguard.web.exposition import CONTENT_TYPE, exposition
from smtpguard.web.front import Front, leave_to_front
from smtpguard.web.office import Office
from smtpguard.web.openapi import document
from smtpguard.web.operation import JSON, MAX_BODY_OCTETS
from smtpguard.web.problems import MEDIA_TYPE, Problem, failure, of_status

PREFIX = "/api/v1"
OPERATIONS = (*addresses.OPERATIONS, *invitations.OPERATIONS, *quarantine.OPERATIONS)
READY_SECONDS = 5.0
"""How long the store may take to say that it is there."""

Handler = Callable[[Request[Any, Any, Any]], Awaitable[Response[bytes]]]


def application(office: Office) -> ASGIApp:
    """Put the application together."""
    access = Access(office.tokens, asyncio.get_running_loop().time)
    operations = [
        _route(
            each.method,
            PREFIX + each.path,
            partial(each.handle, office=office, access=access),
            max_body_octets=each.max_body_octets,
        )
        for each in OPERATIONS
    ]
    litestar = BareLitestar(
        [
            *operations,
            _route("GET", f"{PREFIX}/openapi.json", _described),
            _route("GET", "/livez", _live),
            _route("GET", "/readyz", partial(_ready, office)),
            _route("GET", "/metrics", partial(_metrics, office)),
        ],
        openapi_config=None,
        logging_config=None,
        exception_handlers={Problem: _problem, HTTPException: _refused, Exception: leave_to_front},
    )
    return Front(litestar, office.logger, failure)


def _route(method: Method, path: str, answer: Handler, *, max_body_octets: int = MAX_BODY_OCTETS) -> HTTPRouteHandler:
    async def handler(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await answer(request)

    route = HTTPRouteHandler(path, http_method=method, status_code=200, request_max_body_size=max_body_octets)
    return route(handler)


async def _live(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The process serves: there is nothing more to it."""
    del request
    return Response(b"live\n", media_type="text/plain")


async def _ready(office: Office, request: Request[Any, Any, Any]) -> Response[bytes]:
    """Whether mail can be decided about: the store is there, with the schema of this version."""
    del request
    try:
        async with asyncio.timeout(READY_SECONDS):
            await office.store.health.check(office.clock())
    except (SmtpguardError, TimeoutError) as error:
        raise Problem(503, "not-ready", "The store cannot be used.") from error
    return Response(b"ready\n", media_type="text/plain")


async def _metrics(office: Office, request: Request[Any, Any, Any]) -> Response[bytes]:
    del request
    numbers, now = await office.numbers(), office.clock()
    expiring_until = now - office.retention + notice(office.retention) if office.retention else None
    try:
        async with asyncio.timeout(READY_SECONDS):
            backlog = await office.store.quarantine.backlog(expiring_until=expiring_until)
    except (SmtpguardError, TimeoutError):
        backlog = None
    return Response(exposition(numbers, backlog, now), media_type=CONTENT_TYPE)


async def _described(request: Request[Any, Any, Any]) -> Response[bytes]:
    del request
    return Response(document(OPERATIONS, PREFIX), media_type=JSON)


def _problem(request: Request[Any, Any, Any], problem: Problem) -> Response[bytes]:
    del request
    return Response(problem.body, status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


def _refused(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what Litestar refuses; its own texts stay here. A client that goes away within a body is a 500 to it."""
    return _problem(request, of_status(400 if error.status_code == 500 else error.status_code, error.headers))
