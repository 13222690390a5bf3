"""RRVS (RFC 7293): the smarthost hears since when a mailbox is vouched for, and says if it has another owner by now."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from smtpguard.app import clock
from smtpguard.domain.audit import GUARD, Act, ActKind
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import Voucher
from smtpguard.errors import StoreUnavailable
from smtpguard.storage.writer import Writer
from tests.support.guard import RunningGuard, guarding, verify
from tests.support.scripted_smarthost import CAPABILITIES, ScriptedSmarthost, refuse
from tests.support.transcript import greeted

ALICE, BOB = "alice@verified.example", "bob@verified.example"
MAILBOX_CHANGED = refuse(550, "5.7.17 mailbox owner has changed")
DOMAIN_CHANGED = refuse(550, "5.7.18 domain owner has changed")


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost(capabilities=(*CAPABILITIES, "RRVS", "DSN")) as smarthost:
        yield smarthost


@pytest.fixture
async def guard(sqlite_url, smarthost) -> AsyncIterator[RunningGuard]:
    async with guarding(sqlite_url, smarthost.port) as guard:
        yield guard


async def vouch(guard: RunningGuard, address: str, at: datetime, *, customer: str | None = None, **values) -> None:
    mailbox = parse_mailbox(address)
    voucher = Voucher(customer=customer, method="confirmation", verified_at=at, by="test", **values)
    act = Act(clock(), "test", ActKind.ADDRESS_VERIFY, mailbox.lookup_key, "test")
    await guard.desks.store.address_book.verify(mailbox, voucher, act)


async def flag_of(guard: RunningGuard, address: str) -> tuple[str, str] | None:
    flag = (await guard.desks.addresses.show(parse_mailbox(address))).flag
    return flag and (flag.reason, flag.by)


def sent(smarthost: ScriptedSmarthost, recipient: str) -> str:
    """What stood behind the recipient the last time."""
    return smarthost.transactions[-1].rcpt_parameters[recipient]


async def test_rcpt_carries_the_time_of_the_newest_voucher_that_holds(guard, smarthost) -> None:
    now = clock()
    await vouch(guard, ALICE, datetime(2025, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC))
    await vouch(guard, ALICE, datetime(2025, 6, 7, 8, 9, 10, tzinfo=UTC), customer="7")
    await vouch(guard, ALICE, datetime(2026, 1, 1, tzinfo=UTC), valid_until=now - timedelta(seconds=1))
    await vouch(guard, ALICE, datetime(2026, 2, 1, tzinfo=UTC), revoked_at=now - timedelta(seconds=1))
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}> NOTIFY=NEVER ORCPT=rfc822;old@x.example", "250 *")
        await client.ask("RSET", "250 *")

    assert sent(smarthost, ALICE) == "NOTIFY=NEVER ORCPT=rfc822;old@x.example RRVS=2025-06-07T08:09:10Z;C"


async def test_time_to_come_is_said_to_be_now(guard, smarthost) -> None:
    await vouch(guard, ALICE, clock() + timedelta(days=999))
    async with greeted(guard.port) as client:
        await client.message(ALICE)

    assert sent(smarthost, ALICE) <= f"RRVS={clock():%Y-%m-%dT%H:%M:%SZ};C"


async def test_only_a_voucher_has_a_time(sqlite_url, smarthost) -> None:
    """Who is relayed to for another reason is not asked about."""
    policy = {"trusted_domains": "ours.example", "unverified": "relay"}
    async with guarding(sqlite_url, smarthost.port, policy=policy) as guard, greeted(guard.port) as client:
        await vouch(guard, "a@ours.example", datetime(2025, 1, 1, tzinfo=UTC))
        await client.message("a@ours.example", "unknown@x.example")

    assert set(smarthost.transactions[0].rcpt_parameters.values()) == {""}


async def test_smarthost_that_does_not_offer_it(guard, smarthost) -> None:
    smarthost.capabilities = CAPABILITIES
    await verify(guard.desks, ALICE)
    async with greeted(guard.port) as client:
        await client.message(ALICE)

    assert sent(smarthost, ALICE) == ""


async def test_time_is_said_again_where_the_transaction_begins_again(guard, smarthost) -> None:
    for address in (ALICE, BOB):
        await vouch(guard, address, datetime(2025, 1, 2, tzinfo=UTC))
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, BOB)
        await guard.desks.addresses.flag(parse_mailbox(BOB), by="test", reason="complaint")
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", "", ".")
        await client.expect("250 *")

    assert smarthost.messages[0].recipients == [ALICE]
    assert smarthost.messages[0].rcpt_parameters == {ALICE: "RRVS=2025-01-02T00:00:00Z;C"}


@pytest.mark.parametrize(
    ("refusal", "reply"),
    [
        (MAILBOX_CHANGED, "550 5.7.17 mailbox owner has changed"),
        (DOMAIN_CHANGED, "550 5.7.18 domain owner has changed"),
    ],
)
async def test_refusal_at_rcpt_flags(guard, smarthost, refusal, reply) -> None:
    """The flag is in force when the application hears of it, and the others get their mail."""
    await verify(guard.desks, ALICE, BOB)
    smarthost.rcpt = {ALICE: refusal}
    with capture_logs() as lines:
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@b.example>", "250 *")
            await client.ask(f"RCPT TO:<{ALICE}>", reply)
            assert await flag_of(guard, ALICE) == ("ownership-changed", GUARD)
            await client.ask(f"RCPT TO:<{BOB}>", "250 *")
            await client.ask("DATA", "354 *")
            await client.send("Subject: x", "", ".")
            await client.expect("250 *")
            smarthost.rcpt = {}
            await client.message(ALICE)

    assert [message.recipients for message in smarthost.messages] == [[BOB]]
    assert await guard.waiting_for() == [ALICE]
    assert await flag_of(guard, BOB) is None
    [recorded] = await guard.desks.store.audit_log.list(limit=1, after=None)
    assert (recorded.act.kind, recorded.act.actor, recorded.act.subject, recorded.act.why) == (
        ActKind.ADDRESS_FLAG,
        GUARD,
        ALICE,
        f"ownership-changed: {reply}",
    )
    assert [line["recipient"] for line in lines if line["event"] == "owner-changed"] == [ALICE]


@pytest.mark.parametrize("step", ["dot", "data"])
async def test_refusal_of_the_message_flags_its_only_recipient(guard, smarthost, step) -> None:
    await verify(guard.desks, ALICE)
    setattr(smarthost, step, MAILBOX_CHANGED)
    async with greeted(guard.port) as client:
        assert await client.message(ALICE, "unknown@x.example") == "550 5.7.17 mailbox owner has changed"

    assert await flag_of(guard, ALICE) == ("ownership-changed", GUARD)
    assert await flag_of(guard, "unknown@x.example") is None
    assert await guard.waiting() == []


async def test_refusal_of_the_message_for_two_flags_nobody(guard, smarthost) -> None:
    """Nobody knows whom it is about."""
    await verify(guard.desks, ALICE, BOB)
    smarthost.dot = MAILBOX_CHANGED
    async with greeted(guard.port) as client:
        assert await client.message(ALICE, BOB) == "550 5.7.17 mailbox owner has changed"

    assert await flag_of(guard, ALICE) is await flag_of(guard, BOB) is None


@pytest.mark.parametrize(
    "refusal",
    [
        refuse(550, "5.7.19 RRVS test cannot be completed"),
        refuse(450, "4.7.17 perhaps"),
        refuse(450, "5.7.17 of another class"),
        refuse(550, "5.7.1 5.7.17"),
        refuse(550, "5.7.170 x"),
    ],
)
@pytest.mark.parametrize("step", ["rcpt", "dot"])
async def test_other_refusals_flag_nobody(guard, smarthost, step, refusal) -> None:
    await verify(guard.desks, ALICE)
    setattr(smarthost, step, refusal)
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "250 *" if step == "dot" else "[45]50 *")
        if step == "dot":
            await client.ask("DATA", "354 *")
            await client.send("Subject: x", "", ".")
            await client.expect("[45]50 *")

    assert await flag_of(guard, ALICE) is None


async def test_flag_that_stands_keeps_its_reason(sqlite_url, smarthost) -> None:
    """Observing relays to flagged recipients, too."""
    smarthost.rcpt = MAILBOX_CHANGED
    async with guarding(sqlite_url, smarthost.port, policy={"mode": "observe"}) as guard, greeted(guard.port) as client:
        await guard.desks.addresses.flag(parse_mailbox(ALICE), by="anna", reason="complaint")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "550 5.7.17 *")

        assert await flag_of(guard, ALICE) == ("complaint", "anna")


async def test_late_recipient_whose_owner_has_changed(sqlite_url, smarthost) -> None:
    """A sign-up code for a mailbox that has changed hands: refused, and nothing more for it."""
    application = {"name": "shop", "networks": "127.0.0.0/8", "may_verify": True}
    marked = b"X-Smtpguard-Purpose: verification\r\n\r\n"
    async with guarding(sqlite_url, smarthost.port, application=[application]) as guard, greeted(guard.port) as client:
        await verify(guard.desks, BOB)
        smarthost.rcpt = {ALICE: MAILBOX_CHANGED}
        assert await client.message(ALICE, wire=marked) == "550 5.7.17 mailbox owner has changed"
        assert await flag_of(guard, ALICE) == ("ownership-changed", GUARD)
        await guard.desks.addresses.unflag(parse_mailbox(ALICE), by="test", why="test")
        await client.message(ALICE, BOB, wire=marked)

        assert await flag_of(guard, ALICE) == ("ownership-changed", GUARD)
        assert await guard.waiting_for() == [ALICE]
        assert [message.recipients for message in smarthost.messages] == [[BOB]]


async def test_flag_that_cannot_be_set_is_logged_and_the_refusal_heard(guard, smarthost, monkeypatch) -> None:
    await verify(guard.desks, ALICE)
    smarthost.rcpt = MAILBOX_CHANGED

    async def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(Writer, "write", fail)
    with capture_logs() as lines:
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@b.example>", "250 *")
            await client.ask(f"RCPT TO:<{ALICE}>", "550 5.7.17 *")

    [line] = [line for line in lines if line["event"] == "flag-failed"]
    assert (line["recipient"], line["error"]) == (ALICE, "the disk is gone")
