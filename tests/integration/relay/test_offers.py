"""What the smarthost offers, for the reply to an application's EHLO: fresh, shared, bounded, and never an error."""

import asyncio
from dataclasses import replace

import pytest

from smtpguard.domain.capabilities import Capabilities
from tests.integration.relay.deliveries import ALICE, begin, deliver
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import CAPABILITIES, ScriptedSmarthost, drop, hang, hold, in_turn, refuse, stall

USUAL = Capabilities(size=52428800, eight_bit_mime=True, smtputf8=False, dsn=False)


@pytest.fixture
def stale(monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.offers.FRESH_SECONDS", 0.0)


@pytest.fixture
def eager(monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.offers.PAUSE_SECONDS", 0.0)


async def test_the_first_question_opens_a_connection_that_is_used_then(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)

        assert await smarthost.offers() == USUAL
        assert smarthost._pool.idle == 1
        await deliver(smarthost)
        assert len(scripted.connections) == 1


async def test_the_idle_connection_may_have_gone_stale(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await smarthost.offers()
        scripted.mail = in_turn(drop())
        await deliver(smarthost)

        assert len(scripted.connections) == 2


async def test_what_is_fresh_is_not_asked_for(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])

        assert await smarthost.offers() == USUAL
        assert len(scripted.connections) == 1
        await transaction.abort()


async def test_every_handshake_renews_it(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, max_connections=2)
        first = begin(smarthost)
        await first.rcpt([ALICE])
        scripted.capabilities = (*CAPABILITIES, "SMTPUTF8")
        second = begin(smarthost)
        await second.rcpt([ALICE])

        assert await smarthost.offers() == replace(USUAL, smtputf8=True)
        await first.abort()
        await second.abort()


async def test_what_is_old_is_asked_for_again(relay_to, stale, monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.pool.MAX_AGE_SECONDS", 0.0)  # as old as what is known is every idle connection
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await smarthost.offers()
        scripted.capabilities = ("DSN",)

        assert await smarthost.offers() == Capabilities(size=None, eight_bit_mime=False, smtputf8=False, dsn=True)
        assert len(scripted.connections) == 2


async def test_all_who_ask_at_once_share_one_connection(relay_to) -> None:
    event = asyncio.Event()
    async with ScriptedSmarthost(ehlo=hold(event)) as scripted:
        smarthost = relay_to(scripted)
        asking = [asyncio.create_task(smarthost.offers()) for _ in range(20)]
        await scripted.wait_for_command("EHLO")
        event.set()

        assert set(await asyncio.gather(*asking)) == {USUAL}
        assert len(scripted.connections) == 1


async def test_the_one_who_asks_for_all_is_cancelled(relay_to) -> None:
    event = asyncio.Event()
    async with ScriptedSmarthost(ehlo=hold(event)) as scripted:
        smarthost = relay_to(scripted)
        asking = [asyncio.create_task(smarthost.offers()) for _ in range(3)]
        await scripted.wait_for_command("EHLO")
        asking[0].cancel()
        await scripted.wait_for_command("EHLO", 2)
        event.set()

        assert set(await asyncio.gather(*asking[1:])) == {USUAL}
        await eventually(lambda: smarthost._pool.borrowed == 0)


async def test_the_last_known_where_the_smarthost_fails_now(relay_to, stale, monkeypatch) -> None:
    """And it is left in peace for a while."""
    monkeypatch.setattr("smtpguard.relay.pool.MAX_AGE_SECONDS", 0.0)
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await smarthost.offers()
        scripted.greeting = refuse(554, "5.3.2 not now")

        assert [await smarthost.offers() for _ in range(3)] == [USUAL] * 3
        assert len(scripted.connections) == 2


async def test_nobody_knows(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)

    assert await smarthost.offers() is None


async def test_it_is_asked_again_after_the_pause(relay_to, eager) -> None:
    async with ScriptedSmarthost(greeting=refuse(554, "5.3.2 not now")) as scripted:
        smarthost = relay_to(scripted)
        assert await smarthost.offers() is None
        scripted.greeting = None

        assert await smarthost.offers() == USUAL


@pytest.mark.parametrize("action", [hang(), stall()])
async def test_nobody_waits_for_long(relay_to, monkeypatch, action) -> None:
    monkeypatch.setattr("smtpguard.relay.offers.PATIENCE_SECONDS", 0.1)
    async with ScriptedSmarthost(greeting=action) as scripted:
        smarthost = relay_to(scripted)
        async with asyncio.timeout(5):
            assert set(await asyncio.gather(*(smarthost.offers() for _ in range(10)))) == {None}

        assert len(scripted.connections) == 1
        await eventually(lambda: smarthost._pool.borrowed == 0)


async def test_all_connections_are_in_use(relay_to, stale, monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.offers.PATIENCE_SECONDS", 0.05)
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, max_connections=1)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])

        assert await smarthost.offers() == USUAL
        await transaction.abort()


async def test_a_smarthost_that_was_closed(relay_to, stale) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await smarthost.offers()
        await smarthost.close()

        assert await smarthost.offers() == USUAL
