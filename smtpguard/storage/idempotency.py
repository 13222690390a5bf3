"""What the API answered under which idempotency key, so that a request that comes twice is carried out once."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, select, update

from smtpguard.domain.api_token import ApiToken
from smtpguard.storage.dialects import insert_into
from smtpguard.storage.tables import idempotency_keys
from smtpguard.storage.writer import Writer

KEPT_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks under a key, and what: the digest is that of the whole request."""

    token: ApiToken
    key: str
    request_digest: str
    at: datetime


@dataclass(frozen=True, slots=True)
class EarlierRequest:
    """The request that came first under a key; ``status`` and ``body`` are None while it has no answer."""

    request_digest: str
    status: int | None
    body: str | None


class IdempotencyKeys:
    """The keys of the last 24 hours."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def claim(self, claim: Claim) -> EarlierRequest | None:
        """Take a key, on disk when it returns; or return what was asked under it before. Forgets old keys."""
        values = {"request_digest": claim.request_digest, "created_at": claim.at}

        def work(connection: Connection) -> EarlierRequest | None:
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < claim.at - KEPT_FOR))
            insert = insert_into(connection.dialect, idempotency_keys).on_conflict_do_nothing()
            taken = insert.values(token_id=claim.token.id, key=claim.key, **values).returning(idempotency_keys.c.key)
            if connection.execute(taken).first() is not None:
                return None
            row = connection.execute(select(idempotency_keys).where(*_is(claim))).one()
            return EarlierRequest(row.request_digest, row.status, row.body)

        return await self._writer.write(work, durable=True)

    async def answer(self, claim: Claim, status: int, body: str) -> None:
        """Note the answer, on disk when it returns."""
        note = update(idempotency_keys).where(*_is(claim)).values(status=status, body=body)
        await self._writer.write(lambda connection: connection.execute(note).rowcount, durable=True)

    async def give_back(self, claim: Claim) -> None:
        """Forget a key under which nothing was done."""
        forget = delete(idempotency_keys).where(*_is(claim))
        await self._writer.write(lambda connection: connection.execute(forget).rowcount, durable=True)


def _is(claim: Claim) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return idempotency_keys.c.token_id == claim.token.id, idempotency_keys.c.key == claim.key
