"""The quarantine over HTTP."""

import asyncio

from smtpguard.domain.mailbox import parse_mailbox
from tests.support.api import asking
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import ScriptedSmarthost, drop, hold, refuse
from tests.support.transcript import greeted

STRANGER = "xyz123@provider.example"
WHY = {"reason": "the customer called"}


async def keep(api, number: int = 1) -> list[str]:
    """Have so many messages kept; return their ids, the oldest first."""
    async with greeted(api.guard.port) as client:
        for _ in range(number):
            assert (await client.message(STRANGER)).startswith("250 ")
    return [each.id for each in await api.guard.waiting()]


async def test_release(api, smarthost) -> None:
    [message] = await keep(api)

    said = await api.done("POST", f"/quarantine/{message}/release", {**WHY, "on_behalf_of": "Anna"})

    assert (said["state"], said["decided_by"]) == ("released", "token:crm on behalf of Anna")
    assert [each.recipients for each in smarthost.messages] == [[STRANGER]]
    assert await api.refused("POST", f"/quarantine/{message}/release", WHY) == (409, "refused")


async def test_discard_and_show(api) -> None:
    [message] = await keep(api)
    shown = await api.done("GET", f"/quarantine/{message}")
    assert (shown["recipient"], shown["state"], shown["reason"]) == (STRANGER, "quarantined", "unknown")

    said = await api.done("POST", f"/quarantine/{message}/discard", WHY)

    assert said["state"] == "discarded"
    assert said["decided_why"] == WHY["reason"]
    assert await api.done("GET", f"/quarantine/{message}") == said


async def test_pages_and_states(api) -> None:
    ids = await keep(api, 5)
    await api.done("POST", f"/quarantine/{ids[0]}/discard", WHY)
    seen, after = [], ""
    while after is not None:
        page = await api.done("GET", f"/quarantine?limit=2{after and f'&after={after}'}")
        seen += [each["id"] for each in page["items"]]
        after = page["next"]

    assert seen == ids[1:]
    discarded = await api.done("GET", "/quarantine?state=discarded&state=released")
    assert [each["id"] for each in discarded["items"]] == ids[:1]
    assert await api.refused("GET", "/quarantine?state=gone") == (400, "bad-query")


async def test_flagged_recipient(api, smarthost) -> None:
    [message] = await keep(api)
    await api.guard.desks.addresses.flag(parse_mailbox(STRANGER), by="test", reason="a stranger")
    path = f"/quarantine/{message}/release"

    assert await api.refused("POST", path, WHY) == (409, "recipient-flagged")
    assert await api.refused("POST", path, {**WHY, "despite_flag": "true"}) == (400, "bad-body")
    assert smarthost.messages == []
    assert (await api.done("POST", path, {**WHY, "despite_flag": True}))["state"] == "released"


async def test_message_that_is_not_there(api) -> None:
    for act, body in [("release", WHY), ("discard", WHY), ("settle", {**WHY, "sent": True})]:
        assert await api.refused("POST", f"/quarantine/01ABC-1/{act}", body) == (404, "not-found")
    assert await api.refused("GET", "/quarantine/01ABC-1") == (404, "not-found")


async def test_smarthost_that_refuses(sqlite_url) -> None:
    """The message waits, and the same request can be made again under its key."""
    async with ScriptedSmarthost(rcpt=refuse(550, "5.1.1 no")) as smarthost, asking(sqlite_url, smarthost.port) as api:
        [message] = await keep(api)
        for _ in range(2):
            response = await api("POST", f"/quarantine/{message}/release", WHY, Idempotency_Key="k")
            assert (response.status_code, response.json()["code"]) == (502, "smarthost-refused")
            assert response.json()["smarthost_code"] == 550
            assert "idempotency-replayed" not in response.headers
        assert (await api.done("GET", f"/quarantine/{message}"))["state"] == "quarantined"


async def test_smarthost_that_is_not_there(sqlite_url, smarthost) -> None:
    async with asking(sqlite_url, smarthost.port) as api:
        [message] = await keep(api)
        await smarthost.stop()
        path = f"/quarantine/{message}/release"

        assert await api.refused("POST", path, WHY, Idempotency_Key="k") == (502, "smarthost-unavailable")
        await smarthost.start()
        assert (await api.done("POST", path, WHY, Idempotency_Key="k"))["state"] == "released"


async def test_smarthost_that_is_lost_after_the_dot(sqlite_url) -> None:
    """Maybe sent, and never again by itself; the same request hears the same."""
    async with ScriptedSmarthost(dot=drop()) as smarthost, asking(sqlite_url, smarthost.port) as api:
        [message] = await keep(api)
        path = f"/quarantine/{message}"
        for _ in range(2):
            said = await api.refused("POST", f"{path}/release", WHY, Idempotency_Key="k")
            assert said == (502, "smarthost-lost")
        assert len(smarthost.messages) == 1
        assert (await api.done("GET", path))["state"] == "maybe-sent"
        settled = await api.done("POST", f"{path}/settle", {**WHY, "sent": False})
        assert settled["state"] == "quarantined"
        assert await api.refused("POST", f"{path}/settle", {**WHY, "sent": True}) == (409, "refused")


async def test_two_releases_at_once(api, smarthost) -> None:
    [message] = await keep(api)

    said = await asyncio.gather(*(api("POST", f"/quarantine/{message}/release", WHY) for _ in range(5)))

    assert sorted(each.status_code for each in said) == [200, 409, 409, 409, 409]
    assert len(smarthost.messages) == 1


async def test_end_of_the_guard_lets_a_release_end(sqlite_url) -> None:
    """It is answered before the guard is gone."""
    dot = asyncio.Event()
    async with ScriptedSmarthost(dot=hold(dot)) as smarthost:
        async with asking(sqlite_url, smarthost.port) as api:
            [message] = await keep(api)
            release = asyncio.create_task(api("POST", f"/quarantine/{message}/release", WHY))
            await eventually(lambda: bool(smarthost.messages))
            asyncio.get_running_loop().call_later(0.05, dot.set)
            ending = asyncio.create_task(api.guard.guard._web.close())
            said = await release
            await ending
        assert said.status_code == 200
        assert said.json()["state"] == "released"
