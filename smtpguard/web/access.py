"""Who asks: the bearer token of a request (RFC 6750), looked up each time, so that a revoked one is none at once."""

from collections.abc import Callable

from smtpguard.domain.api_token import ApiToken, Scope
from smtpguard.service.token_desk import TokenDesk
from smtpguard.web.limits import PeerLimit
from smtpguard.web.problems import Problem

MAX_FAILURES = 30
"""Wrong tokens from one network in a minute; what comes then hears 429."""

_CHALLENGE = {"www-authenticate": 'Bearer realm="smtpguard"'}


def credentials(authorization: str | None) -> str:
    """Return what stands behind ``Bearer``; nothing, which is no token, where that is missing."""
    kind, _, text = (authorization or "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""


class Access:
    """Knows tokens, and counts those that are none.

    A token that holds is let in however many were wrong: nobody guesses 256 bits, and behind a proxy all come from the
    same address. The limit spares the store, and the log of whoever watches it. ``clock`` gives seconds that never go
    back.
    """

    def __init__(self, tokens: TokenDesk, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._failures = PeerLimit(clock, limit=MAX_FAILURES)

    async def token(self, authorization: str | None, peer: str, scope: Scope) -> ApiToken:
        """Return the token of a request. Raises Problem, StoreUnavailable."""
        token = await self._find(authorization)
        if token is None:
            raise self._refusal(peer)
        if scope not in token.scopes:
            wanted = {
                "www-authenticate": f'Bearer realm="smtpguard", error="insufficient_scope", scope="{scope.value}"'
            }
            detail = f"The token lacks the scope {scope.value}."
            raise Problem(403, "insufficient-scope", detail, headers=wanted)
        return token

    async def _find(self, authorization: str | None) -> ApiToken | None:
        return await self._tokens.find(credentials(authorization))

    def _refusal(self, peer: str) -> Problem:
        seconds = self._failures.count(peer)
        if seconds is not None:
            wait = {"retry-after": str(seconds)}
            return Problem(429, "too-many-failures", "Too many requests without a token that holds.", headers=wait)
        return Problem(401, "no-token", "The request wants a token that holds.", headers=_CHALLENGE)
