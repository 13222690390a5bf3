"""Housekeeping: what waits for too long expires, announced and once, and nothing else does."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from smtpguard.domain.audit import GUARD, ActKind
from smtpguard.domain.ids import transaction_id
from smtpguard.domain.quarantined import QuarantineState
from smtpguard.errors import ActRefused
from smtpguard.service import housekeeping as module
from smtpguard.service.housekeeping import Housekeeping
from smtpguard.storage import Store, expiry, open_store
from smtpguard.telemetry import get_logger
from tests.integration.storage.builders import CONTENT, SUMMARY, act, messages
from tests.support.eventually import eventually
from tests.support.guard import guarding
from tests.support.scripted_smarthost import ScriptedSmarthost

BEGIN = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MOMENT = timedelta(microseconds=1)
RETENTION = 30 * DAY
NOTICE = 7 * DAY


@dataclass
class House:
    """A store, whose clock the test sets, and who keeps it."""

    store: Store
    now: datetime = BEGIN
    retention: timedelta | None = RETENTION

    async def keep(self, *recipients: str) -> list[str]:
        kept = messages(*recipients, transaction_id=transaction_id(self.now, b"random"), received_at=self.now)
        await self.store.quarantine.keep(kept, SUMMARY, [CONTENT.message])
        return [message.id for message in kept]

    async def keep_some(self, number: int) -> list[str]:
        """One transaction each."""
        kept = []
        for _ in range(number):
            kept += await self.keep()
            self.now += timedelta(seconds=1)
        return kept

    async def round_at(self, at: datetime) -> list[dict]:
        """Make a round; return what the log says."""
        self.now = at
        with capture_logs() as lines:
            await Housekeeping(self.store, self.retention, lambda: self.now, get_logger()).round()
        return lines

    async def state(self, message_id: str) -> QuarantineState:
        return (await self.store.quarantine.get(message_id)).state

    async def expired(self) -> list[str]:
        found = await self.store.quarantine.list(limit=0, after=None, states=[QuarantineState.EXPIRED])
        return [message.id for message in found]


@pytest.fixture
async def house(store) -> House:
    return House(store)


async def test_message_expires_at_its_time_and_was_announced(house) -> None:
    [message_id] = await house.keep()

    assert await house.round_at(BEGIN + RETENTION - NOTICE - MOMENT) == []
    [announced] = await house.round_at(BEGIN + RETENTION - NOTICE)
    assert announced == {
        "event": "quarantine-expiring",
        "log_level": "warning",
        "messages": 1,
        "newly_announced": 1,
        "within_days": 7.0,
        "oldest": "2026-05-04T12:00:00+00:00",
    }
    [again] = await house.round_at(BEGIN + RETENTION - MOMENT)
    assert (again["messages"], again["newly_announced"]) == (1, 0)
    assert await house.state(message_id) is QuarantineState.QUARANTINED
    [_, expired] = await house.round_at(BEGIN + RETENTION)
    assert (expired["event"], expired["messages"]) == ("quarantine-expired", 1)
    assert await house.round_at(BEGIN + RETENTION + DAY) == []


async def test_expired_message_tells_who_and_why_and_has_no_content(house) -> None:
    first, second = await house.keep("a@x.example", "b@x.example")
    await house.round_at(BEGIN + RETENTION - NOTICE)
    await house.store.quarantine.move(
        second, expected=QuarantineState.QUARANTINED, to=QuarantineState.MAYBE_SENT, act=act()
    )
    await house.round_at(BEGIN + RETENTION)

    message = await house.store.quarantine.get(first)
    assert (message.state, message.decided_by, message.decided_at, message.decided_why) == (
        QuarantineState.EXPIRED,
        GUARD,
        BEGIN + RETENTION,
        "it waited for 30 days",
    )
    [recorded, *_] = await house.store.audit_log.list(limit=1, after=None)
    assert (recorded.act.kind, recorded.act.actor, recorded.act.subject) == (ActKind.EXPIRE, GUARD, first)
    assert await house.store.audit_log.verify() is None
    assert await house.state(second) is QuarantineState.MAYBE_SENT, "a release whose end is not known never expires"
    assert await house.store.quarantine.content(second) == CONTENT, "it is there for as long as a message is open"
    await house.store.quarantine.move(
        second, expected=QuarantineState.MAYBE_SENT, to=QuarantineState.QUARANTINED, act=act()
    )
    [announced] = await house.round_at(BEGIN + RETENTION)
    assert announced["newly_announced"] == 1, "what waits again is announced again"
    await house.round_at(BEGIN + RETENTION + NOTICE)
    assert await house.expired() == [first, second]
    with pytest.raises(ActRefused, match="is gone: it is expired"):
        await house.store.quarantine.content(second)


async def test_old_message_is_announced_before_it_expires(house) -> None:
    """Nobody has looked for long: the guard was off, is new, or the retention was longer."""
    [message_id] = await house.keep()
    later = BEGIN + 365 * DAY

    [announced] = await house.round_at(later)
    assert announced["newly_announced"] == 1
    await house.round_at(later + NOTICE - MOMENT)
    assert await house.state(message_id) is QuarantineState.QUARANTINED
    await house.round_at(later + NOTICE)
    assert await house.state(message_id) is QuarantineState.EXPIRED


async def test_short_retention_gives_notice_of_a_third(house) -> None:
    house.retention = 3 * DAY
    [message_id] = await house.keep()

    assert await house.round_at(BEGIN + 2 * DAY - MOMENT) == []
    [announced] = await house.round_at(BEGIN + 2 * DAY)
    assert announced["within_days"] == 1.0
    await house.round_at(BEGIN + 3 * DAY)
    assert await house.expired() == [message_id]


async def test_without_a_retention_nothing_expires(house) -> None:
    house.retention = None
    await house.keep()

    assert await house.round_at(BEGIN + 9999 * DAY) == []
    assert await house.expired() == []


async def test_what_was_decided_stays_as_it_is(house) -> None:
    [message_id] = await house.keep()
    await house.round_at(BEGIN + RETENTION - NOTICE)
    await house.store.quarantine.move(
        message_id, expected=QuarantineState.QUARANTINED, to=QuarantineState.DISCARDED, act=act()
    )

    assert await house.round_at(BEGIN + RETENTION) == []
    assert await house.state(message_id) is QuarantineState.DISCARDED


async def test_many_expire_some_at_a_time_and_younger_ones_wait(house, monkeypatch) -> None:
    monkeypatch.setattr(expiry, "EXPIRED_AT_ONCE", 2)
    monkeypatch.setattr(expiry, "ANNOUNCED_AT_ONCE", 2)
    old = await house.keep_some(5)
    house.now += DAY
    [young] = await house.keep()
    last = BEGIN + timedelta(seconds=4)

    [announced] = await house.round_at(last + RETENTION - NOTICE)
    [_, expired] = await house.round_at(last + RETENTION)

    assert (announced["newly_announced"], expired["messages"]) == (5, 5)
    assert await house.expired() == old
    assert await house.state(young) is QuarantineState.QUARANTINED


async def test_one_transaction_does_not_remove_much(house, monkeypatch) -> None:
    """But one message at least, however big."""
    monkeypatch.setattr(expiry, "EXPIRED_OCTETS_AT_ONCE", 2 * len(CONTENT.message))
    kept = await house.keep_some(3)
    later = BEGIN + 365 * DAY
    await house.round_at(later)

    async def step() -> list[str]:
        return await house.store.quarantine.expire(
            received_until=later, announced_until=later, act=lambda each: act(ActKind.EXPIRE, each)
        )

    assert await step() == kept[:2]
    monkeypatch.setattr(expiry, "EXPIRED_OCTETS_AT_ONCE", 1)
    assert await step() == kept[2:]


async def test_two_guards_let_a_message_expire_once(house, store_url) -> None:
    kept = await house.keep_some(20)
    later = BEGIN + 365 * DAY
    await house.round_at(later)
    house.now = later + NOTICE

    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(open_store(store_url)) for _ in range(2)]
        with capture_logs() as lines:
            await asyncio.gather(
                *(Housekeeping(each, RETENTION, lambda: house.now, get_logger()).round() for each in others)
            )

    assert sum(line["messages"] for line in lines if line["event"] == "quarantine-expired") == len(kept)
    acts = await house.store.audit_log.list(limit=0, after=None)
    assert sorted(each.act.subject for each in acts) == await house.expired() == kept


async def test_release_and_expiry_at_once(house, store_url) -> None:
    """One of the two gets each message; a release that was late is told so."""
    kept = await house.keep_some(10)

    later = BEGIN + 365 * DAY
    await house.round_at(later)
    house.now = later + NOTICE

    async def claim(other: Store, message_id: str) -> bool:
        try:
            await other.quarantine.move(
                message_id, expected=QuarantineState.QUARANTINED, to=QuarantineState.MAYBE_SENT, act=act()
            )
        except ActRefused:
            return False
        return True

    async with open_store(store_url) as other:
        keeper = Housekeeping(house.store, RETENTION, lambda: house.now, get_logger())
        _, *claimed = await asyncio.gather(keeper.round(), *(claim(other, each) for each in reversed(kept)))

    states = [await house.state(each) for each in reversed(kept)]
    assert states == [QuarantineState.MAYBE_SENT if won else QuarantineState.EXPIRED for won in claimed]


async def test_counts_of_days_gone_by_are_removed(house) -> None:
    """But those of yesterday: the clock of another guard may be late."""
    house.retention = None

    async def is_counted(days_ago: int) -> bool:
        day = BEGIN.date() - timedelta(days=days_ago)
        return await house.store.allowances.take("mail", ["a"], day=day, limit=1) == [False]

    for days_ago in range(4):
        await is_counted(days_ago)
    await house.round_at(BEGIN)

    assert [await is_counted(days_ago) for days_ago in range(4)] == [True, True, False, False]


async def test_store_that_fails_ends_a_round_and_not_the_guard(store_url) -> None:
    async with open_store(store_url) as store:
        house = House(store)
        await house.keep()
    [line] = await house.round_at(BEGIN + RETENTION)

    assert (line["event"], line["log_level"]) == ("housekeeping-failed", "error")
    assert "closed" in line["error"]


async def test_guard_keeps_house(sqlite_url, monkeypatch) -> None:
    monkeypatch.setattr(module, "FIRST_ROUND_SECONDS", 0)
    async with open_store(sqlite_url) as store:
        await House(store).keep()
    with capture_logs() as lines:
        async with ScriptedSmarthost() as smarthost, guarding(sqlite_url, smarthost.port):
            await eventually(lambda: any(line["event"] == "quarantine-expiring" for line in lines))
        async with ScriptedSmarthost() as smarthost, guarding(sqlite_url, smarthost.port, quarantine={"retention": 0}):
            await asyncio.sleep(0)
    assert len([line for line in lines if line["event"] == "quarantine-expiring"]) == 1
