"""Idempotency keys: a write that comes twice is carried out once, and is answered the same both times.

The order is: the key is taken, on disk; then it is done; then the answer is noted. So a guard that dies in between
leaves a key without an answer, and the same request hears 409 for as long as the key is kept: whoever asked looks how
things stand. The other order could do it twice.
"""

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from smtpguard.domain.api_token import ApiToken
from smtpguard.errors import SmtpguardError
from smtpguard.storage.idempotency import Claim, EarlierRequest
from smtpguard.web.office import Office
from smtpguard.web.problems import Problem, nothing_was_done, problem_of
from smtpguard.web.reply import Reply, refusal

_KEY = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True)
class Request:
    """Who asks under which key, if any, and for what."""

    token: ApiToken
    key: str | None
    content: bytes
    """Method, path and body."""
    secret: str
    """What the token is known by, of which the store knows a digest only."""

    @property
    def digest(self) -> str:
        """What is kept of the request; keyed, as a body may hold what is soon guessed, such as a challenge's answer."""
        return hmac.new(self.secret.encode(), self.content, hashlib.sha256).hexdigest()


async def once(request: Request, office: Office, act: Callable[[], Awaitable[Reply]]) -> Reply:
    """Carry out a write, or say what came of it when it was asked for before. Raises Problem."""
    if request.key is None:
        reply, _ = await _carried_out(act)
        return reply
    if not _KEY.fullmatch(request.key):
        raise Problem(400, "bad-idempotency-key", "Idempotency-Key wants 1 to 255 printable ASCII characters.")
    claim = Claim(request.token, request.key, request.digest, office.clock())
    try:
        earlier = await office.store.idempotency_keys.claim(claim)
    except SmtpguardError as error:
        raise problem_of(error) from error
    if earlier is not None:
        return _answer_again(earlier, claim)
    reply, is_final = await _carried_out(act)
    with suppress(SmtpguardError):  # it is done, or not: that it cannot be noted leaves the key without an answer
        if is_final:
            await office.store.idempotency_keys.answer(claim, reply.status, reply.body.decode())
        else:
            await office.store.idempotency_keys.give_back(claim)
    return reply


async def _carried_out(act: Callable[[], Awaitable[Reply]]) -> tuple[Reply, bool]:
    """Do it; return the answer, and whether the same request is to have the same answer later."""
    try:
        return await act(), True
    except Problem as problem:
        return refusal(problem), True
    except SmtpguardError as error:
        return refusal(problem_of(error)), not nothing_was_done(error)


def _answer_again(earlier: EarlierRequest, claim: Claim) -> Reply:
    if earlier.request_digest != claim.request_digest:
        raise Problem(422, "idempotency-key-reused", "This Idempotency-Key came with another request before.")
    if earlier.status is None or earlier.body is None:
        raise Problem(
            409,
            "idempotency-key-in-use",
            "The same request is under way, or its end is not known: look how things stand before asking anew.",
        )
    return Reply(earlier.status, earlier.body.encode(), {"idempotency-replayed": "true"})
