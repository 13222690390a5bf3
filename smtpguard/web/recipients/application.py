"""The application of the recipients' pages.

GET and HEAD change nothing, however often a scanner calls them. A link that does nothing shows one page, whatever the
reason, and what somebody without a link asks for is answered the same whatever the address. An answer that comes sooner
than a person reads is asked for again: a program that submits what it fetches decides nothing.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Method

from smtpguard.domain.invitation import Answer, AnswerOutcome, InvitationKind, InvitationState, Language, LinkView
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.errors import Busy, MailboxSyntaxError, SmtpguardError
from smtpguard.service.invitation_desk import InvitationDesk
from smtpguard.telemetry import Logger
from smtpguard.web.bare_litestar import BareLitestar
from smtpguard.web.front import Failure, Front, leave_to_front
from smtpguard.web.limits import PeerLimit
from smtpguard.web.recipients.pages import CONTENT_SECURITY_POLICY, Pages

MAX_BODY_OCTETS = 4096
MAX_FIELDS = 10
HASTY = timedelta(seconds=2)
"""Who answers sooner after the page was made has not read it."""
MAX_REQUESTS = 60
"""What one network may ask for in a minute; more hear 429."""
MAX_ACCEPT_LANGUAGE = 200
HTML = "text/html"
FORM = "application/x-www-form-urlencoded"

_TAG = re.compile(r"\s*([A-Za-z]{1,8})[A-Za-z0-9-]*\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?))?\s*")

Page = Response[bytes]
AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True)
class Reception:
    """Receives recipients. ``language`` is for whoever asks for none of ours."""

    desk: InvitationDesk
    pages: Pages
    language: Language
    limit: PeerLimit
    clock: Callable[[], datetime]

    async def show_link(self, request: AnyRequest) -> Page:
        """Show what a link asks."""
        view = await self.desk.look(request.path_params["token"])
        return self._gone(request) if view is None else self._shown(request, view)

    async def take_answer(self, request: AnyRequest) -> Page:
        """Take what was pressed; an unknown link goes the same way as a used one, and takes the same time."""
        token, form = request.path_params["token"], await _form(request)
        view, answer = await self.desk.look(token), _answer(form)
        if answer is None or self._is_hasty(form, view):
            return (
                self._gone(request) if view is None else self._shown(request, view, problem="hasty" if answer else "")
            )
        challenge_answer = form.get("challenge_answer", "")
        answered = await self.desk.answer(
            token, answer, challenge_answer=challenge_answer, evidence=f"{_peer(request)}, by the page"
        )
        if view is None:
            return self._gone(request)
        match answered.outcome:
            case AnswerOutcome.CONFIRMED:
                return _page(self.pages.confirmed(view.language, shown_at=self.clock()))
            case AnswerOutcome.DISOWNED:
                return _page(self.pages.disowned(view.language))
            case AnswerOutcome.WRONG_ANSWER:
                return self._asked_again(view, tried=bool(challenge_answer.strip()), tries_left=answered.tries_left)
            case AnswerOutcome.REFUSED:
                return self._gone(request)

    async def show_stop(self, request: AnyRequest) -> Page:
        """Ask somebody without a link for the address."""
        return _page(self.pages.stop(self._language(request)))

    async def take_stop(self, request: AnyRequest) -> Page:
        """Send a link there, if the address is known; nobody hears whether it is."""
        language, form = self._language(request), await _form(request)
        try:
            mailbox = parse_mailbox(form.get("address", "").strip())
        except MailboxSyntaxError:
            return _page(self.pages.stop(language, problem="stop_invalid"), 422)
        self.desk.request_disown(mailbox, language=language)
        return _page(self.pages.sent(language))

    def limited(self, receive: Callable[[AnyRequest], Awaitable[Page]]) -> Callable[[AnyRequest], Awaitable[Page]]:
        """Put the limit in front of a receiver, and an answer behind what can fail."""

        async def handler(request: AnyRequest) -> Page:
            language = self._language(request)
            seconds = self.limit.count(_peer(request))
            if seconds is not None:
                return _page(self.pages.busy(language), 429, {"retry-after": str(seconds)})
            try:
                return await receive(request)
            except Busy:
                return _page(self.pages.busy(language), 503, {"retry-after": "60"})
            except SmtpguardError:
                return _page(self.pages.failed(language), 503, {"retry-after": "60"})

        return handler

    def refused(self, request: AnyRequest, error: HTTPException) -> Page:
        """Answer what is no page, or no form of ours."""
        if error.status_code == 404:
            return self._gone(request)
        return _page(self.pages.failed(self._language(request)), error.status_code, error.headers)

    def failure(self, status: int) -> Failure:
        """Say that something went wrong, where nobody knows to whom."""
        return Failure(status, f"{HTML}; charset=utf-8", self.pages.failed(self.language))

    def _shown(self, request: AnyRequest, view: LinkView, *, problem: str = "") -> Page:
        now = self.clock()
        if view.state is InvitationState.TRIES_USED_UP:
            return _page(self.pages.only_no(view.language, shown_at=now, problem=problem))
        if view.state is not InvitationState.OPEN:
            return self._gone(request)
        if view.kind is InvitationKind.DISOWN:
            return _page(self.pages.disown(view.language, shown_at=now, problem=problem))
        label = view.challenge_label
        return _page(self.pages.question(view.language, shown_at=now, challenge_label=label, problem=problem))

    def _asked_again(self, view: LinkView, *, tried: bool, tries_left: int) -> Page:
        now = self.clock()
        if tries_left <= 0:
            return _page(self.pages.only_no(view.language, shown_at=now))
        problem = "challenge_wrong" if tried else "challenge_missing"
        return _page(
            self.pages.question(
                view.language,
                shown_at=now,
                challenge_label=view.challenge_label,
                problem=problem,
                tries_left=tries_left,
            )
        )

    def _gone(self, request: AnyRequest) -> Page:
        """Not in the language of an invitation: that would tell that there was one."""
        return _page(self.pages.gone(self._language(request)), 404)

    def _is_hasty(self, form: Mapping[str, str], view: LinkView | None) -> bool:
        """Whether a program may have answered; whoever takes a Yes back may do it at once."""
        if view is not None and view.state is InvitationState.ANSWERED:
            return False
        try:
            return self.clock() - datetime.fromisoformat(form.get("shown_at", "")) < HASTY
        except (ValueError, TypeError, OverflowError):  # not what the page said
            return True

    def _language(self, request: AnyRequest) -> Language:
        asked: str = request.query_params.get("lang") or request.headers.get("accept-language") or ""
        return preferred_language(asked, self.language)


def application(reception: Reception, logger: Logger, *, is_https: bool) -> ASGIApp:
    """Put the application together; ``is_https``: browsers may be told that it is reached by nothing else."""
    routes = [
        _route(("GET", "HEAD"), ["/c/{token:str}", "/d/{token:str}"], reception.limited(reception.show_link)),
        _route(("POST",), ["/c/{token:str}", "/d/{token:str}"], reception.limited(reception.take_answer)),
        _route(("GET", "HEAD"), ["/stop"], reception.limited(reception.show_stop)),
        _route(("POST",), ["/stop"], reception.limited(reception.take_stop)),
    ]
    litestar = BareLitestar(
        routes,
        openapi_config=None,
        logging_config=None,
        exception_handlers={HTTPException: reception.refused, Exception: leave_to_front},
    )
    headers = {"content-security-policy": CONTENT_SECURITY_POLICY, "x-robots-tag": "noindex"}
    if is_https:
        headers["strict-transport-security"] = "max-age=31536000"
    return Front(litestar, logger, reception.failure, headers)


def preferred_language(asked: str, otherwise: Language) -> Language:
    """Return the language of ours that is liked best (RFC 9110 12.5.4)."""
    known = {language.value: language for language in Language}
    liked: dict[Language, float] = {}
    for tag in asked[:MAX_ACCEPT_LANGUAGE].split(","):
        match = _TAG.fullmatch(tag)
        if match and (language := known.get(match[1].lower())) is not None:
            liked.setdefault(language, float(match[2] or 1))
    best = max(liked, key=lambda language: liked[language], default=otherwise)
    return best if liked.get(best) else otherwise


def _route(
    methods: Sequence[Method], paths: list[str], answer: Callable[[AnyRequest], Awaitable[Page]]
) -> HTTPRouteHandler:
    async def handler(request: AnyRequest) -> Page:
        return await answer(request)

    route = HTTPRouteHandler(paths, http_method=methods, status_code=200, request_max_body_size=MAX_BODY_OCTETS)
    return route(handler)


async def _form(request: AnyRequest) -> Mapping[str, str]:
    """Read a form; of a field that comes twice the last counts. Raises HTTPException."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(status_code=415)
    try:
        return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), max_num_fields=MAX_FIELDS))
    except ValueError:  # too many fields
        raise HTTPException(status_code=400) from None


def _answer(form: Mapping[str, str]) -> Answer | None:
    """Return what was pressed, None where nothing was: a form that is submitted without its buttons."""
    return next((answer for answer in Answer if answer.value == form.get("answer")), None)


def _peer(request: AnyRequest) -> str:
    return request.client.host if request.client else ""


def _page(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Page:
    return Response(body, status_code=status, media_type=HTML, headers=headers)
