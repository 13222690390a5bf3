"""One operation of the API: what it wants, who may have it, and the way of each request to it."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import date
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import msgspec
from litestar import Request, Response
from litestar.types import Method

from smtpguard.domain.api_token import ApiToken, Scope
from smtpguard.errors import SmtpguardError
from smtpguard.web.access import Access, credentials
from smtpguard.web.bodies import ActBody, Body
from smtpguard.web.idempotency import Request as IdempotentRequest
from smtpguard.web.idempotency import once
from smtpguard.web.office import Office
from smtpguard.web.problems import Problem, of_status, problem_of
from smtpguard.web.reply import Reply, reply_of

MAX_BODY_OCTETS = 262_144
JSON = "application/json"

B = TypeVar("B", bound=Body | None)
Q = TypeVar("Q")


class NoQuery(msgspec.Struct, forbid_unknown_fields=True):
    """There is nothing to ask behind the path."""


@dataclass(frozen=True)
class Call(Generic[B, Q]):
    """A request that may be carried out."""

    office: Office
    token: ApiToken
    body: B
    query: Q
    path: Mapping[str, Any]

    @property
    def by(self) -> str:
        """Who acts, for the audit log."""
        on_behalf_of = self.body.on_behalf_of if isinstance(self.body, ActBody) else None
        name = f"token:{self.token.name}"
        return f"{name} on behalf of {on_behalf_of.strip()}" if on_behalf_of else name


@dataclass(frozen=True)
class Operation(Generic[B, Q]):
    """What is done at a path with a method. ``act`` raises SmtpguardError, Problem."""

    method: Method
    path: str
    scope: Scope
    summary: str
    act: Callable[[Call[B, Q]], Awaitable[Any]]
    answer: type
    body: type[B] | None = None
    query: type[Q] | type[NoQuery] = NoQuery
    max_body_octets: int = MAX_BODY_OCTETS

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.body is not None and issubclass(self.body, ActBody)

    async def handle(self, request: Request[Any, Any, Any], office: Office, access: Access) -> Response[bytes]:
        """Answer a request: who asks comes first, then what is asked. Raises Problem."""
        token = await self._token(request, office, access)
        query = self._query(request)
        async with office.big_body if self.max_body_octets > MAX_BODY_OCTETS else nullcontext():
            reply = await self._reply(request, office, token, query)
        return Response(reply.body, status_code=reply.status, media_type=reply.media_type, headers=reply.headers)

    async def _reply(self, request: Request[Any, Any, Any], office: Office, token: ApiToken, query: Any) -> Reply:
        octets = await self._octets(request)
        call = Call(office, token, self._body(octets), query, request.path_params)

        async def act() -> Reply:
            return reply_of(await self.act(call))

        if self.writes:
            target = f"{self.method} {request.scope['path']}".encode()
            asked = IdempotentRequest(
                token,
                request.headers.get("idempotency-key"),
                target + b"\n" + octets,
                secret=credentials(request.headers.get("authorization")),
            )
            return await once(asked, office, act)
        try:
            return await act()
        except SmtpguardError as error:
            raise problem_of(error) from error

    async def _token(self, request: Request[Any, Any, Any], office: Office, access: Access) -> ApiToken:
        peer = request.client.host if request.client else ""
        try:
            token = await access.token(request.headers.get("authorization"), peer, self.scope)
        except SmtpguardError as error:
            raise problem_of(error) from error
        request.scope["auth"] = token.name
        today = office.clock().date()
        if token.last_used != today:
            office.spawn(_note_use(office, token, today))
        return token

    def _query(self, request: Request[Any, Any, Any]) -> Any:
        asked: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            if name == "state":  # the only one that may stand there several times
                asked.setdefault(name, []).append(value)
            elif name in asked:
                raise Problem(400, "bad-query", f"{name} stands there twice.")
            else:
                asked[name] = value
        try:
            return msgspec.convert(asked, self.query, strict=False)
        except msgspec.ValidationError as error:
            raise Problem(400, "bad-query", "What stands behind the path is wrong.", why=str(error)) from error

    async def _octets(self, request: Request[Any, Any, Any]) -> bytes:
        octets = await request.body()
        if self.body is not None and request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise of_status(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        return octets

    def _body(self, octets: bytes) -> Any:
        if self.body is None:
            return None
        try:
            return msgspec.json.decode(octets, type=self.body)
        except msgspec.ValidationError as error:
            raise Problem(400, "bad-body", "The body is not what is wanted here.", why=str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(400, "bad-body", "The body is not JSON.") from error


async def _note_use(office: Office, token: ApiToken, today: date) -> None:
    with suppress(SmtpguardError):  # the next request will
        await office.store.api_tokens.used(token, today)
