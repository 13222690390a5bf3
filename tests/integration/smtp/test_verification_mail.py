"""Applications' own verification mail: it gets through to the unverified, and is no way around anything else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from smtpguard.domain.decision import Reason, Verdict
from smtpguard.domain.mailbox import parse_mailbox
from tests.support.guard import RunningGuard, guarding, put_on_record, verify
from tests.support.scripted_smarthost import ScriptedSmarthost, drop, refuse
from tests.support.transcript import greeted

ALICE, BOB = "alice@verified.example", "bob@verified.example"
STRANGER, UNVERIFIED, FLAGGED = "new@unknown.example", "xyz123@provider.example", "stop@provider.example"
MARK = b"X-Smtpguard-Purpose: verification\r\n"
WIRE = b"Subject: Your code\r\n\r\n123456\r\n"
MARKED = MARK + WIRE


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@asynccontextmanager
async def shop(url: str, smarthost: ScriptedSmarthost, *, a_day: int = 2, **keys: Any) -> AsyncIterator[RunningGuard]:
    """A guard whose only application may verify, unless ``keys`` say otherwise."""
    application = {"name": "shop", "networks": "127.0.0.0/8", "may_verify": True} | keys
    verification = {"max_verification_mails_per_day": a_day}
    timeouts = {"command_timeout": 1, "reply_timeout": 1}
    sections = {"application": [application], "verification": verification, "smarthost": timeouts}
    async with guarding(url, smarthost.port, **sections) as guard:
        await verify(guard.desks, ALICE, BOB)
        await put_on_record(guard.desks, [UNVERIFIED, FLAGGED])
        await guard.desks.addresses.flag(parse_mailbox(FLAGGED), by="test", reason="complaint")
        yield guard


async def verdicts(guard: RunningGuard) -> list[tuple[str, Verdict, Reason]]:
    """What the ledger says, in the order of events."""
    rows = await guard.desks.store.ledger.list(limit=0, after=None)
    decisions = [row.entry.decision for row in reversed(rows)]
    return [(each.recipient.text, each.verdict, each.reason) for each in decisions]


async def test_marked_mail_reaches_whoever_is_not_verified(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        for recipient in (STRANGER, UNVERIFIED):
            assert (await client.message(recipient, wire=MARKED)).startswith("250 2.0.0 OK id=")

        assert [sent.recipients for sent in smarthost.messages] == [[STRANGER], [UNVERIFIED]]
        assert all(sent.message.split(b"\r\n", 3)[3] == WIRE for sent in smarthost.messages), "the mark is taken out"
        assert await guard.waiting() == []
        assert await verdicts(guard) == [
            (each, Verdict.RELAY, Reason.VERIFICATION_MAIL) for each in (STRANGER, UNVERIFIED)
        ]


async def test_unmarked_mail_is_kept_and_the_smarthost_not_asked(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.message(STRANGER, wire=WIRE)

        assert await guard.waiting_for() == [STRANGER]
        assert smarthost.transactions == []


@pytest.mark.parametrize(
    "marks",
    [
        MARK + MARK,
        b"X-Smtpguard-Purpose: invitation\r\n",
        MARK + b"X-SMTPGUARD-PURPOSE: other\r\n",
        b"Subject: x\r\n\r\n" + MARK,
    ],
)
async def test_what_is_no_mark(sqlite_url, smarthost, marks) -> None:
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.message(STRANGER, wire=marks + WIRE)

        assert await guard.waiting_for() == [STRANGER]
        assert smarthost.transactions == []


async def test_mark_of_an_application_that_may_not(sqlite_url, smarthost) -> None:
    with capture_logs() as lines:
        async with shop(sqlite_url, smarthost, may_verify=False) as guard, greeted(guard.port) as client:
            await client.message(STRANGER, ALICE, wire=MARKED)

            assert await guard.waiting_for() == [STRANGER]
            assert [sent.recipients for sent in smarthost.messages] == [[ALICE]]
    [line] = [line for line in lines if line["event"] == "transaction-ended"]
    assert line["purpose"] == "ignored"


async def test_flagged_recipient_gets_nothing(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.message(FLAGGED, STRANGER, wire=MARKED)

        assert [sent.offered for sent in smarthost.transactions] == [[STRANGER]]
        assert await guard.waiting_for() == [FLAGGED]


async def test_flag_between_rcpt_and_the_end_of_data(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.envelope(STRANGER)
        await guard.desks.addresses.flag(parse_mailbox(STRANGER), by="test", reason="complaint")
        await client.ask("DATA", "354 *")
        await client.send_octets(MARKED + b".\r\n")
        await client.expect("250 *")

        assert smarthost.transactions == []
        assert await guard.waiting_for() == [STRANGER]


async def test_who_was_flagged_at_rcpt_waits_though_the_flag_is_gone(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.envelope(FLAGGED)
        await guard.desks.addresses.unflag(parse_mailbox(FLAGGED), by="test", why="mistake")
        await client.ask("DATA", "354 *")
        await client.send_octets(MARKED + b".\r\n")
        await client.expect("250 *")

        assert smarthost.transactions == []
        assert await guard.waiting_for() == [FLAGGED]


async def test_cap_of_a_day_for_an_address_however_it_is_written(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost, a_day=2) as guard, greeted(guard.port) as client:
        await client.message(STRANGER, "New@Unknown.example", "NEW@unknown.example", UNVERIFIED, wire=MARKED)
        await client.message(STRANGER, wire=MARKED)

        [sent] = smarthost.messages
        assert sent.recipients == [STRANGER, "New@Unknown.example", UNVERIFIED]
        kept = await guard.waiting()
        assert [(each.recipient.text, each.reason) for each in kept] == [
            ("NEW@unknown.example", Reason.UNKNOWN),
            (STRANGER, Reason.UNKNOWN),
        ]


async def test_verified_recipients_use_nothing_up(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost, a_day=1) as guard, greeted(guard.port) as client:
        for _ in range(3):
            await client.message(ALICE, wire=MARKED)

        assert await verdicts(guard) == [(ALICE, Verdict.RELAY, Reason.VERIFIED)] * 3


async def test_late_recipients_join_those_that_the_smarthost_knows(sqlite_url, smarthost) -> None:
    """One transaction, and one body to all of them."""
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.message(ALICE, STRANGER, BOB, wire=MARKED)

        [sent] = smarthost.transactions
        assert sent.recipients == [ALICE, BOB, STRANGER]


async def test_late_recipient_while_another_one_is_dropped(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.envelope(ALICE, STRANGER, BOB)
        await guard.desks.addresses.flag(parse_mailbox(ALICE), by="test", reason="complaint")
        await client.ask("DATA", "354 *")
        await client.send_octets(MARKED + b".\r\n")
        await client.expect("250 *")

        [sent] = smarthost.messages
        assert sent.recipients == [STRANGER, BOB]
        assert await guard.waiting_for() == [ALICE]


async def test_vouched_for_another_customer(sqlite_url, smarthost) -> None:
    """The smarthost knows of this one from RCPT on."""
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await verify(guard.desks, "carl@x.example", customer="1")
        await client.message("carl@x.example", wire=b"X-Customer-ID: 2\r\n" + MARKED)
        await client.message("carl@x.example", wire=b"X-Customer-ID: 2\r\n" + WIRE)

        [sent] = smarthost.messages
        assert sent.recipients == ["carl@x.example"]
        assert [each.reason for each in await guard.waiting()] == [Reason.NOT_VERIFIED_FOR_CUSTOMER]


async def test_big_message(sqlite_url, smarthost) -> None:
    """What does not fit into memory is sent in steps."""
    big = MARKED + b"x" * 70 + b"\r\n" + (b"y" * 998 + b"\r\n") * 1200
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.message(STRANGER, wire=big)

        [sent] = smarthost.messages
        assert sent.message.endswith(big.removeprefix(MARK))


# What the smarthost says only now


async def test_refusal_of_the_only_recipient_is_passed_on(sqlite_url, smarthost) -> None:
    smarthost.rcpt = {STRANGER: refuse(550, "5.1.1 no such user")}
    async with shop(sqlite_url, smarthost, a_day=1) as guard, greeted(guard.port) as client:
        assert await client.message(STRANGER, wire=MARKED) == "550 5.1.1 no such user"
        assert await guard.waiting() == []
        smarthost.rcpt = {}
        assert (await client.message(STRANGER, wire=MARKED)).startswith("250"), "what was not sent is not counted"

    assert [sent.recipients for sent in smarthost.messages] == [[STRANGER]]


async def test_refusals_of_all_that_may_pass_are_put_off(sqlite_url, smarthost) -> None:
    smarthost.rcpt = {STRANGER: refuse(550, "5.1.1 no"), UNVERIFIED: refuse(450, "4.2.0 greylisted")}
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        assert await client.message(STRANGER, UNVERIFIED, wire=MARKED) == "450 4.2.0 greylisted"
        assert await guard.waiting() == []


@pytest.mark.parametrize("refusal", [refuse(550, "5.1.1 no such user"), refuse(450, "4.2.0 greylisted")])
async def test_refusal_of_one_among_others_is_kept(sqlite_url, smarthost, refusal) -> None:
    """It had its 250, and the others have theirs."""
    smarthost.rcpt = {STRANGER: refusal}
    with capture_logs() as lines:
        async with shop(sqlite_url, smarthost, a_day=1) as guard, greeted(guard.port) as client:
            await client.message(STRANGER, UNVERIFIED, ALICE, wire=MARKED)

            assert [sent.recipients for sent in smarthost.messages] == [[ALICE, UNVERIFIED]]
            assert [(each.recipient.text, each.reason) for each in await guard.waiting()] == [
                (STRANGER, Reason.UNKNOWN)
            ]
            smarthost.rcpt = {}
            await client.message(STRANGER, wire=MARKED)
            assert smarthost.messages[1].recipients == [STRANGER]
    [first, _] = [line for line in lines if line["event"] == "transaction-ended"]
    assert first["error"].startswith(STRANGER)


async def test_refusal_of_all_late_ones_beside_one_that_is_kept(sqlite_url, smarthost) -> None:
    smarthost.rcpt = refuse(550, "5.1.1 no such user")
    async with shop(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.message(STRANGER, FLAGGED, wire=MARKED)

        assert smarthost.messages == []
        assert await guard.waiting_for() == [STRANGER, FLAGGED]


@pytest.mark.parametrize(
    ("step", "action", "reply"),
    [
        ("mail", drop(), "451 4.4.1 *"),
        ("mail", refuse(550, "5.7.1 no relay"), "550 5.7.1 no relay"),
        ("rcpt", drop(), "451 4.4.1 *"),
        ("data", refuse(452, "4.3.1 full"), "452 4.3.1 full"),
        ("dot", refuse(554, "5.6.0 spam"), "554 5.6.0 spam"),
    ],
)
async def test_what_was_not_sent_is_not_counted(sqlite_url, smarthost, step, action, reply) -> None:
    async with shop(sqlite_url, smarthost, a_day=1) as guard, greeted(guard.port) as client:
        usual = getattr(smarthost, step)
        for _ in range(2):
            setattr(smarthost, step, action)
            await client.envelope(STRANGER)
            await client.ask("DATA", "354 *")
            await client.send_octets(MARKED + b".\r\n")
            await client.expect(reply)
        assert await guard.waiting() == []
        setattr(smarthost, step, usual)
        await client.message(STRANGER, wire=MARKED)
        await client.message(STRANGER, wire=MARKED)

        assert await guard.waiting_for() == [STRANGER]


async def test_maybe_delivered_is_counted(sqlite_url, smarthost) -> None:
    smarthost.dot = drop()
    async with shop(sqlite_url, smarthost, a_day=1) as guard, greeted(guard.port) as client:
        assert (await client.message(STRANGER, wire=MARKED)).startswith("451 4.4.2")
        await client.message(STRANGER, wire=MARKED)

        assert await guard.waiting_for() == [STRANGER]


# Other policies


async def test_reject_waits_for_the_mark(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost, a_day=1, unverified="reject") as guard, greeted(guard.port) as client:
        await client.message(STRANGER, wire=MARKED)
        beyond_the_cap = await client.message(STRANGER, wire=MARKED)
        unmarked = await client.message(UNVERIFIED, STRANGER, wire=WIRE)
        mixed = await client.message(STRANGER, ALICE, wire=MARKED)

        assert beyond_the_cap == unmarked == "550 5.7.1 The recipient address is not verified"
        assert mixed.startswith("250 ")
        assert [sent.recipients for sent in smarthost.messages] == [[STRANGER], [ALICE]]
        assert await guard.waiting_for() == [STRANGER]
        assert await verdicts(guard) == [
            (STRANGER, Verdict.RELAY, Reason.VERIFICATION_MAIL),
            (STRANGER, Verdict.REJECT, Reason.UNKNOWN),
            (UNVERIFIED, Verdict.REJECT, Reason.NOT_VERIFIED),
            (STRANGER, Verdict.REJECT, Reason.UNKNOWN),
            (STRANGER, Verdict.QUARANTINE, Reason.UNKNOWN),
            (ALICE, Verdict.RELAY, Reason.VERIFIED),
        ]


async def test_flagged_are_rejected_as_ever(sqlite_url, smarthost) -> None:
    policy = {"unverified": "reject", "flagged": "reject"}
    async with shop(sqlite_url, smarthost, **policy) as guard, greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{FLAGGED}>", "550 5.7.1 Mail to the recipient address is stopped")
        await client.ask(f"RCPT TO:<{STRANGER}>", "250 2.1.5 *")
        await guard.desks.addresses.flag(parse_mailbox(STRANGER), by="test", reason="complaint")
        await client.ask("DATA", "354 *")
        await client.send_octets(MARKED + b".\r\n")
        await client.expect("550 5.7.1 Mail to the recipient address is stopped")

        assert smarthost.transactions == []


async def test_reject_of_an_application_that_may_not(sqlite_url, smarthost) -> None:
    async with (
        shop(sqlite_url, smarthost, may_verify=False, unverified="reject") as guard,
        greeted(guard.port) as client,
    ):
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER}>", "550 5.7.1 *")


async def test_observing(sqlite_url, smarthost) -> None:
    """What enforcing would have done: let through the first, and no more."""
    async with shop(sqlite_url, smarthost, a_day=1, mode="observe") as guard, greeted(guard.port) as client:
        for wire in (WIRE, MARKED, MARKED):
            await client.message(STRANGER, wire=wire)
        rows = await guard.desks.store.ledger.list(limit=0, after=None)

    assert [sent.recipients for sent in smarthost.messages] == [[STRANGER]] * 3
    assert [(row.entry.decision.reason, row.entry.decision.would_be) for row in reversed(rows)] == [
        (Reason.UNKNOWN, Verdict.QUARANTINE),
        (Reason.VERIFICATION_MAIL, None),
        (Reason.UNKNOWN, Verdict.QUARANTINE),
    ]


async def test_where_everything_is_relayed_nothing_is_counted(sqlite_url, smarthost) -> None:
    async with shop(sqlite_url, smarthost, a_day=1, unverified="relay") as guard, greeted(guard.port) as client:
        for _ in range(2):
            await client.message(STRANGER, wire=MARKED)

        assert await verdicts(guard) == [(STRANGER, Verdict.RELAY, Reason.UNKNOWN)] * 2


async def test_two_guards_at_the_cap(postgres_url, smarthost) -> None:
    """Both read the same store, and have nothing else in common."""
    async with AsyncExitStack() as stack:
        guards = [await stack.enter_async_context(shop(postgres_url, smarthost, a_day=3)) for _ in range(2)]
        clients = [await stack.enter_async_context(greeted(guards[number % 2].port)) for number in range(8)]
        replies = await asyncio.gather(*(client.message(STRANGER, wire=MARKED) for client in clients))

        assert all(reply.startswith("250 ") for reply in replies)
        assert [sent.recipients for sent in smarthost.messages] == [[STRANGER]] * 3
        assert await guards[0].waiting_for() == [STRANGER] * 5


async def test_flag_on_one_node_holds_on_the_other(postgres_url, smarthost) -> None:
    async with shop(postgres_url, smarthost) as one, shop(postgres_url, smarthost) as other:
        async with greeted(other.port) as client:
            await client.message(STRANGER, wire=MARKED)
            await one.desks.addresses.flag(parse_mailbox(STRANGER), by="test", reason="complaint")
            await client.message(STRANGER, wire=MARKED)

        assert len(smarthost.messages) == 1
        assert await other.waiting_for() == [STRANGER]
