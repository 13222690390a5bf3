"""The tokens of the API: an operator creates and revokes them, a request is known by one."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from smtpguard.domain.api_token import ApiToken, Scope, new_token, token_digest
from smtpguard.domain.audit import Act, ActKind
from smtpguard.storage import Store


@dataclass(frozen=True)
class TokenDesk:
    """What is done with tokens."""

    store: Store
    clock: Callable[[], datetime]

    async def create(self, name: str, scopes: Collection[Scope], random: bytes, *, by: str) -> str:
        """Make a token out of random octets and return it: it is never shown again. Raises ActRefused."""
        token = new_token(random)
        why = " ".join(sorted(scope.value for scope in scopes))
        act = Act(at=self.clock(), actor=by, kind=ActKind.TOKEN_CREATE, subject=name, why=why)
        await self.store.api_tokens.create(name, token_digest(token) or "", frozenset(scopes), act)
        return token

    async def revoke(self, name: str, *, by: str, why: str) -> None:
        """Let a token do nothing any more, from the next request on. Raises NotFound, ActRefused."""
        act = Act(at=self.clock(), actor=by, kind=ActKind.TOKEN_REVOKE, subject=name, why=why)
        await self.store.api_tokens.revoke(name, act)

    async def list(self, *, limit: int, after: str | None = None) -> list[ApiToken]:
        """List by name, revoked ones included; ``limit`` 0 is all, ``after`` the last name of the page before."""
        return await self.store.api_tokens.list(limit=limit, after=after)

    async def find(self, text: str) -> ApiToken | None:
        """Return the token that this is, read from the store each time, so that a revoked one is none."""
        digest = token_digest(text)
        return None if digest is None else await self.store.api_tokens.find(digest)
