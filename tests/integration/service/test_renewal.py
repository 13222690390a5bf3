"""Who is invited again before a voucher ends, and who is not, on both stores."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from smtpguard.app import Desks, open_desks
from smtpguard.domain.audit import ActKind
from smtpguard.domain.invitation import Answer, AnswerOutcome
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import Standing
from smtpguard.service import housekeeping
from smtpguard.service.renewal import Renewal
from smtpguard.settings import Settings
from smtpguard.storage import ending_vouchers
from smtpguard.telemetry import get_logger
from tests.support.eventually import eventually
from tests.support.guard import guarding, put_on_record
from tests.support.invitations import INVITING, VERIFICATION, inviting_settings, text_of, token_of
from tests.support.scripted_smarthost import ScriptedSmarthost, drop, refuse

BEGIN = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MOMENT = timedelta(microseconds=1)
SOON = BEGIN + 10 * DAY
ANNA = "anna@example.com"


@dataclass
class Years:
    """Desks whose clock the test sets."""

    desks: Desks
    smarthost: ScriptedSmarthost
    set_time: Callable[[datetime], None]

    async def vouch(self, address: str, until: datetime | None = SOON, *, customer: str | None = "7") -> None:
        await self.desks.addresses.verify(
            parse_mailbox(address), customer=customer, by="test", why="letter", valid_until=until
        )

    async def round_at(self, at: datetime, *, desks: Desks | None = None) -> list[str]:
        """Make a round; return who was invited."""
        self.set_time(at)
        desks = desks or self.desks
        before = len(self.smarthost.messages)
        await Renewal(desks.store, desks.invitations.invite_again, 30 * DAY, desks.clock, get_logger()).round()
        return [each.recipients[0] for each in self.smarthost.messages[before:] if each.code == 250]


@pytest.fixture
def set_time(monkeypatch) -> Callable[[datetime], None]:
    now = [BEGIN]
    monkeypatch.setattr("smtpguard.app.desks.clock", lambda: now[0])
    return lambda at: now.__setitem__(0, at)


@asynccontextmanager
async def living(settings: Settings, smarthost: ScriptedSmarthost, set_time) -> AsyncIterator[Years]:
    async with open_desks(settings) as desks:
        yield Years(desks, smarthost, set_time)


@pytest.fixture
async def years(store_url, smarthost, set_time) -> AsyncIterator[Years]:
    async with living(inviting_settings(store_url, smarthost.port), smarthost, set_time) as years:
        yield years


async def test_before_its_end_and_not_a_moment_too_early(years) -> None:
    await years.vouch(ANNA, BEGIN + 30 * DAY + MOMENT)
    assert await years.round_at(BEGIN) == []
    await years.vouch("ben@example.com", BEGIN + DAY + 30 * DAY)
    await years.vouch("eve@example.com", BEGIN + DAY)
    await years.vouch("ever@example.com", BEGIN + 9999 * DAY)
    assert await years.round_at(BEGIN + DAY) == [ANNA, "ben@example.com"]


async def test_yes_is_a_voucher_of_its_own_and_the_old_one_ends(years) -> None:
    """From the same message to what holds after the end of the first."""
    await years.vouch(ANNA)
    assert await years.round_at(BEGIN) == [ANNA]
    [sent] = years.smarthost.messages
    assert text_of(sent).startswith("Hello")
    years.set_time(BEGIN + DAY)
    answered = await years.desks.invitations.answer(token_of(sent), Answer.YES, evidence="192.0.2.1")
    assert answered.outcome is AnswerOutcome.CONFIRMED
    record = await years.desks.addresses.show(parse_mailbox(ANNA))

    assert [(each.customer, each.valid_until) for each in record.vouchers] == [
        ("7", SOON),
        ("7", BEGIN + DAY + 730 * DAY),
    ]
    assert record.standing(SOON) is Standing.VERIFIED
    assert await years.round_at(BEGIN + 8 * DAY) == []
    acts = [each.act for each in await years.desks.store.audit_log.list(limit=0, after=None)]
    assert [each.actor for each in acts if each.kind is ActKind.INVITE] == ["smtpguard"]


@pytest.mark.parametrize(
    ("customer", "until", "is_invited"),
    [
        ("7", None, False),
        ("7", SOON + MOMENT, True),  # the later of the two is what is renewed, once
        ("7", SOON + 30 * DAY, False),
        (None, SOON + 30 * DAY, False),
        ("7", SOON - MOMENT, True),
    ],
)
async def test_another_voucher_behind_it(store_url, smarthost, set_time, customer, until, is_invited) -> None:
    settings = inviting_settings(store_url, smarthost.port, verification={"valid_for": 0})
    async with living(settings, smarthost, set_time) as years:
        await years.vouch(ANNA)
        await years.vouch(ANNA, until, customer=customer)
        assert await years.round_at(BEGIN) == [ANNA] * is_invited


async def test_who_is_not_asked(years) -> None:
    """Flagged, on record for another customer, vouched for no more."""
    await years.vouch("flagged@example.com")
    await years.desks.addresses.flag(parse_mailbox("flagged@example.com"), by="test", reason="complaint")
    await years.vouch("shared@example.com")
    await put_on_record(years.desks, ["shared@example.com"], customer="8")
    await years.vouch("two@example.com", customer="1")
    await years.vouch("two@example.com", customer="2")
    for customer in ("1", "2"):
        await put_on_record(years.desks, ["wide@example.com"], customer=customer)
    await years.vouch("wide@example.com", customer=None)
    await years.vouch("alone@example.com", customer=None)
    await years.desks.invitations.invite(
        parse_mailbox("revoked@example.com"), customer="7", language=None, challenge=None, by="test"
    )
    link = token_of(years.smarthost.messages[0])
    for said in (Answer.YES, Answer.NO):
        await years.desks.invitations.answer(link, said, evidence="x")
    await years.desks.addresses.unflag(parse_mailbox("revoked@example.com"), by="test", why="a mistake")

    assert await years.round_at(BEGIN + 725 * DAY) == []
    assert await years.round_at(BEGIN) == ["alone@example.com"]


async def test_once_a_day_and_once_for_a_voucher(years, store_url) -> None:
    """Whatever guard of a store comes first."""
    await years.vouch(ANNA)
    settings = inviting_settings(store_url, years.smarthost.port)
    async with open_desks(settings) as others:
        assert await years.round_at(BEGIN) == [ANNA]
        await years.vouch("ben@example.com")
        assert await years.round_at(BEGIN + timedelta(hours=11), desks=others) == []
        assert await years.round_at(BEGIN + timedelta(hours=12), desks=others) == ["ben@example.com"]
    for days in range(2, 10):
        assert await years.round_at(BEGIN + days * DAY) == []


async def test_invited_for_another_reason_within_seven_days(years) -> None:
    await years.vouch(ANNA)
    await years.desks.invitations.invite(parse_mailbox(ANNA), customer="8", language=None, challenge=None, by="test")

    assert await years.round_at(BEGIN) == []


async def test_half_of_what_a_day_allows(store_url, smarthost, set_time, monkeypatch) -> None:
    """The rest on the next days, and mail that is kept can invite all the time."""
    monkeypatch.setattr(ending_vouchers, "PAGE_VOUCHERS", 2)
    settings = inviting_settings(store_url, smarthost.port, verification={"max_invitations_per_day": 5})
    addresses = [f"user{number}@example.com" for number in range(5)]
    async with living(settings, smarthost, set_time) as years:
        for address in addresses:
            await years.vouch(address)
        with capture_logs() as logs:
            assert await years.round_at(BEGIN) == addresses[:2]
        line = logs[-1]
        assert (line["event"], line["log_level"], line["invited"]) == ("renewals-invited", "warning", 2)
        assert "max_invitations_per_day" in line["stopped_by"]
        await years.desks.invitations.invite(
            parse_mailbox(ANNA), customer="7", language=None, challenge=None, by="test"
        )
        assert await years.round_at(BEGIN + DAY) == addresses[2:4]
        with capture_logs() as logs:
            assert await years.round_at(BEGIN + 2 * DAY + MOMENT) == addresses[4:]
        assert (logs[-1]["log_level"], logs[-1]["invited"]) == ("info", 1)


async def test_smarthost_that_is_away_is_asked_again_on_the_same_day(years) -> None:
    await years.vouch(ANNA)
    years.smarthost.mail = drop()
    with capture_logs() as logs:
        assert await years.round_at(BEGIN) == []
    years.smarthost.mail = None

    assert (logs[-1]["event"], logs[-1]["invited"]) == ("renewals-invited", 0)
    assert await years.round_at(BEGIN + timedelta(hours=1)) == [ANNA]


async def test_smarthost_that_refuses_one_recipient(years) -> None:
    for address in (ANNA, "ben@example.com"):
        await years.vouch(address)
    years.smarthost.rcpt = {ANNA: refuse(550, "5.1.1 no")}

    assert await years.round_at(BEGIN) == ["ben@example.com"]


@pytest.mark.parametrize(
    ("sections", "is_invited"),
    [
        ({}, True),
        ({"verification": VERIFICATION | {"renew_days": 0}}, False),
        ({"verification": VERIFICATION | {"valid_for": 6}}, False),  # a third of its time
        ({"web": {"public_url": ""}}, False),
    ],
    ids=["on", "off", "short", "no invitations"],
)
async def test_guard_renews(sqlite_url, smarthost, monkeypatch, sections, is_invited) -> None:
    monkeypatch.setattr(housekeeping, "FIRST_ROUND_SECONDS", 0)
    async with open_desks(inviting_settings(sqlite_url, smarthost.port)) as desks:
        await desks.addresses.verify(
            parse_mailbox(ANNA), customer="7", by="test", why="x", valid_until=desks.clock() + 3 * DAY
        )
    rounds = []
    whole_round = housekeeping.Housekeeping.round

    async def noted(keeper: housekeeping.Housekeeping) -> None:
        await whole_round(keeper)
        rounds.append(keeper)

    monkeypatch.setattr(housekeeping.Housekeeping, "round", noted)
    async with guarding(sqlite_url, smarthost.port, **INVITING | sections):
        await eventually(lambda: bool(rounds))

    assert [each.recipients for each in smarthost.messages] == [[ANNA]] * is_invited
