"""The tokens of the API, by the digest of what they are known by."""

import builtins
from datetime import date
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from smtpguard.domain.api_token import ApiToken, Scope
from smtpguard.domain.audit import Act
from smtpguard.errors import ActRefused, NotFound
from smtpguard.storage.audit_log import append_act
from smtpguard.storage.long_work import LongWork
from smtpguard.storage.tables import api_tokens
from smtpguard.storage.writer import Writer


class ApiTokens:
    """Who may use the API, and what for."""

    def __init__(self, writer: Writer, long_work: LongWork) -> None:
        self._writer = writer
        self._long_work = long_work

    async def create(self, name: str, digest: str, scopes: frozenset[Scope], act: Act) -> None:
        """Put a token on record. Raises ActRefused where the name is taken, by a revoked one, too."""
        values = {
            "name": name,
            "token_digest": digest,
            "scopes": " ".join(sorted(scope.value for scope in scopes)),
            "created_at": act.at,
            "created_by": act.actor,
        }

        def work(connection: Connection) -> None:
            append_act(connection, act)  # its lock lets nobody else take the name meanwhile
            if connection.execute(select(api_tokens.c.id).where(api_tokens.c.name == name)).first() is not None:
                raise ActRefused(f"there is a token {name} already")
            connection.execute(insert(api_tokens), values)

        await self._writer.write(work, durable=True)

    async def revoke(self, name: str, act: Act) -> None:
        """Let a token do nothing any more. Raises NotFound; ActRefused where it is revoked."""

        def work(connection: Connection) -> None:
            append_act(connection, act)
            named = api_tokens.c.name == name
            revoke = update(api_tokens).where(named, api_tokens.c.revoked_at.is_(None)).values(revoked_at=act.at)
            if connection.execute(revoke).rowcount:
                return
            if connection.execute(select(api_tokens.c.id).where(named)).first() is None:
                raise NotFound(f"there is no token {name}")
            raise ActRefused(f"token {name} is revoked already")

        await self._writer.write(work, durable=True)

    async def list(self, *, limit: int, after: str | None) -> builtins.list[ApiToken]:
        """Return the tokens behind the name ``after``, by name; ``limit`` 0: all."""

        def page(connection: Connection, after: str | None, rows: int) -> list[ApiToken]:
            query = select(api_tokens).where(api_tokens.c.name > (after or "")).order_by(api_tokens.c.name)
            return [_token(row) for row in connection.execute(query.limit(rows))]

        return await self._long_work.gather(page, limit=limit, after=after, cursor_of=lambda token: token.name)

    async def find(self, digest: str) -> ApiToken | None:
        """Return the token of this digest that is not revoked."""
        query = select(api_tokens).where(api_tokens.c.token_digest == digest, api_tokens.c.revoked_at.is_(None))
        row = await self._long_work.read(lambda connection: connection.execute(query).first())
        return None if row is None else _token(row)

    async def used(self, token: ApiToken, on: date) -> None:
        """Note that a token was used on this day."""
        note = update(api_tokens).where(api_tokens.c.id == token.id).values(last_used=on)
        await self._writer.write(lambda connection: connection.execute(note).rowcount, durable=False)


def _token(row: Row[Any]) -> ApiToken:
    return ApiToken(
        id=row.id,
        name=row.name,
        scopes=frozenset(map(Scope, row.scopes.split())),
        created_at=row.created_at,
        created_by=row.created_by,
        last_used=row.last_used,
        revoked_at=row.revoked_at,
    )
