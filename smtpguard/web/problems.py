"""What is answered where a request was not carried out: problem+json (RFC 9457), with fixed texts.

``code`` is what programs compare. No text of an exception goes out, but those that are written for operators.
"""

from http import HTTPStatus
from typing import Any

import msgspec

from smtpguard.errors import (
    ActRefused,
    Busy,
    MailboxSyntaxError,
    NotFound,
    RecipientFlagged,
    SmarthostLost,
    SmarthostRefused,
    SmarthostUnavailable,
    SmtpguardError,
    StoreError,
    StoreFull,
    StoreUntouched,
)
from smtpguard.web.front import Failure

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request is not carried out, and this is the answer."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    @property
    def body(self) -> bytes:
        """As it goes out."""
        return msgspec.json.encode(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "code": self.code,
                "detail": self.detail,
                **self.members,
            }
        )


def problem_of(error: SmtpguardError) -> Problem:
    """Say what an expected error means for whoever asked; where no text is fixed, its own was written for people."""
    status, code, detail = next(_OF_ERROR[kind] for kind in type(error).__mro__ if kind in _OF_ERROR)
    if isinstance(error, SmarthostRefused):
        return Problem(status, code, detail or str(error), smarthost_code=error.code)
    return Problem(status, code, detail or str(error))


def nothing_was_done(error: SmtpguardError) -> bool:
    """Whether the same request may be carried out later: it has left nothing behind that a second one would double."""
    return isinstance(error, SmarthostUnavailable | SmarthostRefused | StoreUntouched | StoreFull | Busy)


def of_status(status: int, headers: dict[str, str] | None = None) -> Problem:
    """Return the answer to what never became a request of ours."""
    code, detail = _OF_STATUS.get(status, ("bad-request", "The request cannot be read."))
    return Problem(status if status in _OF_STATUS else 400, code, detail, headers=headers)


def failure(status: int) -> Failure:
    """Return the same as the front of the API takes it."""
    problem = of_status(status)
    return Failure(problem.status, MEDIA_TYPE, problem.body)


_OF_ERROR: dict[type, tuple[int, str, str | None]] = {
    MailboxSyntaxError: (422, "invalid-address", None),
    NotFound: (404, "not-found", None),
    ActRefused: (409, "refused", None),
    RecipientFlagged: (409, "recipient-flagged", "The recipient is flagged; only despite_flag sends it all the same."),
    SmarthostRefused: (502, "smarthost-refused", "The smarthost refused it; nothing was sent."),
    SmarthostUnavailable: (502, "smarthost-unavailable", "The smarthost could not be asked; nothing was sent."),
    SmarthostLost: (502, "smarthost-lost", "The smarthost was lost after the final dot: maybe sent, settle it."),
    StoreError: (503, "store-unavailable", "The store cannot be used now: ask again, or look how things stand."),
    Busy: (503, "busy", "Too much to do at once; try again."),
    SmtpguardError: (500, "failed", "An error of the guard; its log tells more."),
}
_OF_STATUS = {
    404: ("not-found", "There is nothing here."),
    405: ("method-not-allowed", "This is not done here; Allow names what is."),
    408: ("too-slow", "The request did not come to its end in time."),
    413: ("too-big", "The body is too big."),
    415: ("not-json", "The body is to be application/json."),
    500: ("failed", "An error of the guard; its log tells more."),
    503: ("busy", "Too many requests at once; try again."),
}
