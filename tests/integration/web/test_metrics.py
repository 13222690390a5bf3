"""Health and metrics: what they tell, and that no address gets into them."""

import sqlite3
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from smtpguard.app import clock
from smtpguard.domain.invitation import Answer, AnswerOutcome, SendingOutcome
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.service import housekeeping
from smtpguard.web.application import CONTENT_TYPE
from tests.support.api import ON_LOOPBACK, asking, client_of, problem
from tests.support.eventually import eventually
from tests.support.guard import guarding, verify
from tests.support.invitations import INVITING, token_of
from tests.support.scripted_smarthost import ScriptedSmarthost, drop, refuse
from tests.support.transcript import greeted

ANNA = "anna@customer.example"
STRANGER = "xyz123@provider.example"
APPLICATION = {"name": "shop", "networks": ["127.0.0.0/8"]}


async def scraped(http: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Each sample under its name and the values of its labels, in the order of their names."""
    response = await http.get("/metrics")
    assert response.status_code == 200
    assert "@" not in response.text
    return {
        (sample.name.removeprefix("smtpguard_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_traffic(sqlite_url) -> None:
    """Of each recipient what was done, once it is done."""
    flagged = "flagged@customer.example"
    no = "no@customer.example"
    policy = {"flagged": "reject"}
    async with (
        ScriptedSmarthost(rcpt={no: refuse(550, "5.1.1 no")}) as smarthost,
        asking(sqlite_url, smarthost.port, application=[APPLICATION], policy=policy) as api,
    ):
        await verify(api.guard.desks, ANNA, no)
        await api.guard.desks.addresses.flag(parse_mailbox(flagged), by="test", reason="x")
        async with greeted(api.guard.port) as client:
            assert (await client.message(ANNA, STRANGER)).startswith("250 ")
            await client.ask("MAIL FROM:<a@b.example>", "250 *")
            await client.ask(f"RCPT TO:<{flagged}>", "550 *")
            await client.ask(f"RCPT TO:<{no}>", "550 *")
            await client.ask("RSET", "250 *")
            numbers = await scraped(api.http)

    assert numbers["recipients_total", "shop", "verified", "relay"] == 1
    assert numbers["recipients_total", "shop", "unknown", "quarantine"] == 1
    assert numbers["recipients_total", "shop", "flagged", "reject"] == 1
    assert numbers["transactions_total", "shop", "accepted"] == 1
    assert numbers["transactions_total", "shop", "aborted"] == 1
    assert numbers["smarthost_errors_total", "refused"] == 1
    assert numbers["transaction_seconds_count",] == 2
    assert numbers["transaction_seconds_bucket", "300.0"] == 2
    assert (numbers["sessions",], numbers["sessions_opened_total",]) == (1, 1)
    assert (numbers["quarantine_messages", "quarantined"], numbers["quarantine_messages", "maybe-sent"]) == (1, 0)
    assert 0 <= numbers["quarantine_oldest_seconds",] < 60
    assert numbers["store_up",] == 1


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ({"dot": drop()}, "lost-after-the-dot"),
        ({"dot": refuse(451, "4.3.0 later")}, "deferred"),
        ({"dot": refuse(554, "5.7.1 never")}, "refused"),
        ({"mail": drop()}, "unavailable"),
    ],
)
async def test_errors_of_the_smarthost(sqlite_url, script, kind) -> None:
    async with ScriptedSmarthost(**script) as smarthost, asking(sqlite_url, smarthost.port) as api:
        await verify(api.guard.desks, ANNA)
        async with greeted(api.guard.port) as client:
            await client.ask("MAIL FROM:<a@b.example>", "250 *")
            await client.send(f"RCPT TO:<{ANNA}>")
            if (await client.reply()).startswith("250"):
                await client.ask("DATA", "354 *")
                await client.send("Subject: x", "", "x", ".")
                await client.reply()
            else:
                await client.ask("RSET", "250 *")
        numbers = await scraped(api.http)

    assert {name[1]: value for name, value in numbers.items() if name[0] == "smarthost_errors_total"} == {kind: 1}


async def test_hostile_names_are_no_labels(api) -> None:
    """What a peer makes up gets nowhere near a label."""
    async with greeted(api.guard.port) as client:
        await client.message('"} 1\\n@"@provider.example', wire=b"X-Customer-ID: a@b\r\nSubject: @\r\n\r\nx\r\n")

    assert (await scraped(api.http))["recipients_total", "default", "unknown", "quarantine"] == 1


async def test_invitations(sqlite_url) -> None:
    """By what became of them; words of closed lists are the only labels."""
    no = "no@customer.example"
    async with (
        ScriptedSmarthost(rcpt={no: refuse(550, "5.1.1 no")}) as smarthost,
        asking(sqlite_url, smarthost.port, **INVITING) as api,
        greeted(api.guard.port) as client,
    ):
        desk = api.guard.guard.invitations
        await client.message(STRANGER)
        token = token_of(await smarthost.wait_for_message())
        challenge = {"label": "number", "answer": "4711"}
        await api.done("POST", "/invitations", {"address": ANNA, "challenge": challenge})
        annas = token_of(smarthost.messages[1])
        for address in (ANNA, no):
            await api("POST", "/invitations", {"address": address})
        for answers in [
            (annas, Answer.YES, "4712"),
            (annas, Answer.NO, ""),
            (token, Answer.YES, ""),
            ("x", Answer.NO, ""),
        ]:
            link, said, challenge_answer = answers
            await desk.answer(link, said, challenge_answer=challenge_answer, evidence="192.0.2.1")
        await smarthost.wait_for_message(3)

        async def is_counted() -> bool:
            return (await scraped(api.http))["confirmed_mail_released_total",] == 1

        await eventually(is_counted)
        numbers = await scraped(api.http)

    counted = {name[1]: value for name, value in numbers.items() if name[0] == "invitations_total"}
    assert counted == {
        "sent": 2,
        "failed": 1,
        "skipped": 1,
        "confirmed": 1,
        "disowned": 1,
        "wrong-answer": 1,
        "refused": 1,
    }
    closed = {each.value for each in (*SendingOutcome, *AnswerOutcome)}
    assert set(counted) == closed


async def test_what_expires(sqlite_url, smarthost, monkeypatch) -> None:
    """Announced before, and counted after."""
    monkeypatch.setattr(housekeeping, "FIRST_ROUND_SECONDS", 0)

    @asynccontextmanager
    async def scraping():
        async with (
            guarding(sqlite_url, smarthost.port, web=ON_LOOPBACK) as guard,
            client_of(guard.guard.web_endpoints[0].port) as http,
        ):
            yield guard, http

    async with scraping() as (guard, http), greeted(guard.port) as client:
        await client.message(STRANGER)
        assert (await scraped(http))["quarantine_expiring",] == 0
    later = clock() + timedelta(days=25)
    monkeypatch.setattr("smtpguard.app.guard.clock", lambda: later)
    async with scraping() as (guard, http):
        assert (await scraped(http))["quarantine_expiring",] == 1

        async def is_announced() -> bool:
            return (await guard.desks.store.quarantine.expiring(received_until=later)).unannounced == 0

        await eventually(is_announced)
    monkeypatch.setattr("smtpguard.app.guard.clock", lambda: later + timedelta(days=7))
    async with scraping() as (_, http):

        async def is_expired() -> bool:
            return (await scraped(http))["quarantine_expired_total",] == 1

        await eventually(is_expired)
        assert (await scraped(http))["quarantine_expiring",] == 0


async def test_form(api) -> None:
    response = await api.http.get("/metrics")

    assert response.headers["content-type"] == f"{CONTENT_TYPE}; charset=utf-8"


async def test_store_that_is_of_another_version(api, sqlite_url) -> None:
    """Not ready; alive; what is counted goes on."""
    assert (await api.http.get("/readyz")).text == "ready\n"
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    assert problem(await api.http.get("/readyz")) == (503, "not-ready")
    assert (await api.http.get("/livez")).status_code == 200


async def test_store_that_is_away(own_postgres_server) -> None:
    """Not ready, 503 for what wants it, and metrics without what only it knows."""
    async with ScriptedSmarthost() as smarthost, asking(own_postgres_server.new_store(), smarthost.port) as api:
        await api.done("GET", "/quarantine")
        own_postgres_server.kill()
        assert problem(await api.http.get("/readyz")) == (503, "not-ready")
        assert await api.refused("GET", "/quarantine") == (503, "store-unavailable")
        numbers = await scraped(api.http)
        assert numbers["store_up",] == 0
        assert ("quarantine_oldest_seconds",) not in numbers
        own_postgres_server.start()

        async def is_ready() -> bool:
            return (await api.http.get("/readyz")).status_code == 200

        await eventually(is_ready)


async def test_smarthost_that_is_away_is_no_matter_of_readiness(api, smarthost) -> None:
    await smarthost.stop()

    assert (await api.http.get("/readyz")).status_code == 200
    await smarthost.start()
