"""A write that comes twice under the same key is carried out once."""

import asyncio
from datetime import timedelta

from smtpguard.storage.idempotency import Claim
from smtpguard.web.idempotency import Request
from tests.support.api import asking, new_token, problem
from tests.support.eventually import eventually

FLAG = {"address": "anna@customer.example", "reason": "x"}
PATH = "/addresses/flag"


async def flags(api) -> int:
    acts = await api.guard.desks.store.audit_log.list(limit=0, after=None)
    return sum(each.act.kind.value == "address-flag" for each in acts)


async def test_same_request_again(api) -> None:
    """The same answer to the octet, with a mark."""
    first = await api("POST", PATH, FLAG, Idempotency_Key="k")
    again = await api("POST", PATH, FLAG, Idempotency_Key="k")

    assert (again.status_code, again.content) == (200, first.content)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert await flags(api) == 1


async def test_refusal_again(api) -> None:
    """What was refused stays so under its key, whatever has become of things."""
    body = {"address": FLAG["address"], "reason": "x"}
    assert await api.refused("POST", "/addresses/unflag", body, Idempotency_Key="k") == (404, "not-found")
    await api.done("POST", PATH, FLAG)

    assert await api.refused("POST", "/addresses/unflag", body, Idempotency_Key="k") == (404, "not-found")
    assert (await api.done("POST", "/addresses/unflag", body, Idempotency_Key="k2"))["standing"] == "unverified"


async def test_many_at_once(api) -> None:
    said = await asyncio.gather(*(api("POST", PATH, FLAG, Idempotency_Key="k") for _ in range(10)))

    assert {each.status_code for each in said} <= {200, 409}
    assert {each.json()["code"] for each in said if each.status_code == 409} <= {"idempotency-key-in-use"}
    assert len({each.content for each in said if each.status_code == 200}) == 1
    assert await flags(api) == 1


async def test_another_request_under_the_key(api) -> None:
    await api.done("POST", PATH, FLAG, Idempotency_Key="k")

    others = [(PATH, {**FLAG, "reason": "y"}), ("/addresses/verify", FLAG)]
    for path, body in others:
        said = await api.refused("POST", path, body, Idempotency_Key="k")
        assert said == (422, "idempotency-key-reused")
    assert await flags(api) == 1


async def test_keys_are_those_of_a_token(api) -> None:
    await api.done("POST", PATH, FLAG, Idempotency_Key="k")
    other = await new_token(api.guard, "other")

    response = await api("POST", PATH, FLAG, Idempotency_Key="k", Authorization=f"Bearer {other}")

    assert response.json()["flag"]["by"] == "token:other"
    assert await flags(api) == 2


async def test_end_that_is_not_known(api) -> None:
    """As a guard leaves it that dies between act and answer: nothing is done twice, until the key is forgotten."""
    import json

    body = json.dumps(FLAG, separators=(",", ":")).encode()
    store, [token] = api.guard.desks.store, await api.guard.desks.tokens.list(limit=0)
    digest = Request(token, "k", b"POST /api/v1/addresses/flag\n" + body, secret=api.token).digest
    now = api.guard.desks.clock()
    await store.idempotency_keys.claim(Claim(token, "dead", digest, now))
    await store.idempotency_keys.claim(Claim(token, "old", digest, now - timedelta(hours=24, seconds=1)))

    said = await api("POST", PATH, FLAG, Idempotency_Key="dead")

    assert problem(said) == (409, "idempotency-key-in-use")
    assert await flags(api) == 0
    await api.done("POST", PATH, FLAG, Idempotency_Key="old")


async def test_bad_body_takes_no_key(api) -> None:
    assert await api.refused("POST", PATH, {}, Idempotency_Key="k") == (400, "bad-body")

    await api.done("POST", PATH, FLAG, Idempotency_Key="k")


async def test_wrong_key(api) -> None:
    for key in ["", "a b", "x" * 256]:
        assert await api.refused("POST", PATH, FLAG, Idempotency_Key=key) == (400, "bad-idempotency-key")
    assert await flags(api) == 0


async def test_key_outlives_the_guard(sqlite_url, smarthost) -> None:
    async with asking(sqlite_url, smarthost.port) as api:
        first = await api.done("POST", PATH, FLAG, Idempotency_Key="k")
        token = api.token
    from tests.support.api import ON_LOOPBACK, client_of
    from tests.support.guard import guarding

    async with guarding(sqlite_url, smarthost.port, web=ON_LOOPBACK) as guard:
        async with client_of(guard.guard.web_endpoints[0].port) as http:
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
            again = await http.post("/api/v1/addresses/flag", json=FLAG, headers=headers)
            assert again.json() == first


async def test_use_of_a_token_is_noted(api) -> None:
    await api.done("GET", "/addresses")

    async def is_noted() -> bool:
        [token] = await api.guard.desks.tokens.list(limit=0)
        return token.last_used == api.guard.desks.clock().date()

    await eventually(is_noted)
