"""The tokens of the API and their idempotency keys, on both engines."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from smtpguard.domain.api_token import ApiToken, Scope
from smtpguard.domain.audit import ActKind
from smtpguard.errors import ActRefused, NotFound
from smtpguard.storage.idempotency import KEPT_FOR, Claim, EarlierRequest
from tests.integration.storage.builders import NOW, SECOND, act

SCOPES = frozenset({Scope.ADDRESSES_READ, Scope.QUARANTINE_DECIDE})


async def create(store, name: str = "crm", digest: str = "d1") -> ApiToken:
    await store.api_tokens.create(name, digest, SCOPES, act(ActKind.TOKEN_CREATE, name))
    token = await store.api_tokens.find(digest)
    assert token is not None
    return token


async def kinds(store) -> list[ActKind]:
    return [each.act.kind for each in await store.audit_log.list(limit=0, after=None)]


async def test_token_comes_back(store) -> None:
    token = await create(store)

    assert token == ApiToken(token.id, "crm", SCOPES, NOW, "anna", last_used=None, revoked_at=None)
    assert await store.api_tokens.find("other") is None
    assert await kinds(store) == [ActKind.TOKEN_CREATE]


async def test_revoked_token_is_none(store) -> None:
    """And its name stays taken."""
    await create(store)
    await store.api_tokens.revoke("crm", act(ActKind.TOKEN_REVOKE, "crm", at=NOW + SECOND))

    assert await store.api_tokens.find("d1") is None
    [listed] = await store.api_tokens.list(limit=0, after=None)
    assert listed.revoked_at == NOW + SECOND
    with pytest.raises(ActRefused):
        await store.api_tokens.revoke("crm", act(ActKind.TOKEN_REVOKE, "crm"))
    with pytest.raises(ActRefused):
        await create(store, digest="d2")
    with pytest.raises(NotFound):
        await store.api_tokens.revoke("shop", act(ActKind.TOKEN_REVOKE, "shop"))
    assert await kinds(store) == [ActKind.TOKEN_REVOKE, ActKind.TOKEN_CREATE]  # what was refused is no act


async def test_two_of_one_name_at_once(store) -> None:
    made = await asyncio.gather(create(store, digest="d1"), create(store, digest="d2"), return_exceptions=True)

    assert [type(each) for each in made if isinstance(each, Exception)] == [ActRefused]


async def test_list_by_name(store) -> None:
    for name in ("shop", "Crm", "billing"):
        await create(store, name, digest=name)

    assert [each.name for each in await store.api_tokens.list(limit=0, after=None)] == ["Crm", "billing", "shop"]
    assert [each.name for each in await store.api_tokens.list(limit=1, after="Crm")] == ["billing"]


async def test_day_of_last_use(store) -> None:
    token = await create(store)
    await store.api_tokens.used(token, NOW.date())

    assert (await store.api_tokens.find("d1")).last_used == NOW.date()


async def test_key_is_taken_once(store) -> None:
    """Also where many come at once."""
    claim = Claim(await create(store), "k", "r1", NOW)

    said = await asyncio.gather(*(store.idempotency_keys.claim(claim) for _ in range(10)))

    assert sorted(said, key=str) == [EarlierRequest("r1", None, None)] * 9 + [None]


async def test_answer_is_kept(store) -> None:
    claim = Claim(await create(store), "k", "r1", NOW)
    await store.idempotency_keys.claim(claim)
    await store.idempotency_keys.answer(claim, 200, '{"a": "\u20ac"}')

    other = replace(claim, request_digest="r2", at=NOW + KEPT_FOR)
    assert await store.idempotency_keys.claim(other) == EarlierRequest("r1", 200, '{"a": "\u20ac"}')


async def test_key_is_forgotten(store) -> None:
    """After a day, or given back."""
    claim = Claim(await create(store), "k", "r1", NOW)
    await store.idempotency_keys.claim(claim)
    later = replace(claim, at=NOW + KEPT_FOR + timedelta(microseconds=1))

    assert await store.idempotency_keys.claim(later) is None
    await store.idempotency_keys.give_back(later)
    assert await store.idempotency_keys.claim(later) is None


async def test_keys_of_two_tokens(store) -> None:
    first, second = await create(store), await create(store, "shop", "d2")

    assert await store.idempotency_keys.claim(Claim(first, "k", "r", NOW)) is None
    assert await store.idempotency_keys.claim(Claim(second, "k", "r", NOW)) is None
