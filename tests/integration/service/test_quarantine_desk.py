"""Release, settle and discard, on both stores."""

import asyncio

import pytest

from smtpguard.app import Desks, clock
from smtpguard.domain.audit import ActKind
from smtpguard.domain.decision import Reason, Verdict
from smtpguard.domain.envelope import NULL_REVERSE_PATH, Body, MailParameters
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.message import HeaderSummary
from smtpguard.domain.quarantined import QuarantinedMessage, QuarantineState
from smtpguard.errors import ActRefused, NotFound, SmarthostLost, SmarthostUnavailable
from tests.support.scripted_smarthost import drop, hang, hold, refuse

MESSAGE = b"Received: x\r\nSubject: Invoice\r\n\r\n.\r\n..\r\nend\r\n"
STRANGER = "Xyz123@provider.example"


async def keep(desks: Desks, number: int = 1, *, transaction: str = "T1") -> list[str]:
    """Put messages of one transaction into quarantine; return their ids."""
    messages = [
        QuarantinedMessage(
            id=f"{transaction}-{each}",
            transaction_id=transaction,
            state=QuarantineState.QUARANTINED,
            recipient=parse_mailbox(STRANGER if each == 1 else f"other{each}@provider.example"),
            reverse_path=NULL_REVERSE_PATH if each == 2 else parse_mailbox("billing@shop.example"),
            parameters=MailParameters(Body.EIGHT_BIT_MIME),
            application="crm",
            customer="7",
            reason=Reason.UNKNOWN,
            received_at=clock(),
            subject="Invoice",
            size=len(MESSAGE),
        )
        for each in range(1, number + 1)
    ]
    await desks.store.quarantine.keep(messages, HeaderSummary("Invoice", "", "", ""), [MESSAGE])
    return [message.id for message in messages]


async def state(desks: Desks, message_id: str) -> QuarantineState:
    return (await desks.quarantine.show(message_id))[0].state


async def acts(desks: Desks) -> list[tuple[ActKind, str, str]]:
    """What the audit log says, oldest first."""
    return [
        (each.act.kind, each.act.actor, each.act.why)
        for each in reversed(await desks.store.audit_log.list(limit=0, after=None))
    ]


async def test_release_sends_the_same_message_to_its_one_recipient(desks, smarthost) -> None:
    first, second, _ = await keep(desks, 3)
    reply = await desks.quarantine.release(first, by="anna", why="proved")
    (sent,) = smarthost.messages

    assert str(reply) == "250 2.0.0 queued as 1"
    assert (sent.reverse_path, sent.recipients) == ("billing@shop.example", [STRANGER])
    assert sent.parameters == ("BODY=8BITMIME", f"SIZE={len(MESSAGE)}")
    assert sent.message == MESSAGE
    assert await state(desks, first) is QuarantineState.RELEASED
    assert await state(desks, second) is QuarantineState.QUARANTINED
    assert await acts(desks) == [(ActKind.RELEASE_BEGIN, "anna", "proved"), (ActKind.RELEASE_END, "anna", "proved")]
    (row,) = await desks.store.ledger.list(limit=0, after=None)
    assert (row.entry.decision.verdict, row.entry.decision.reason) == (Verdict.RELAY, Reason.RELEASED)


async def test_bounce_is_released_with_the_null_reverse_path(desks, smarthost) -> None:
    _, second = await keep(desks, 2)
    await desks.quarantine.release(second, by="anna", why="proved")

    assert smarthost.messages[0].reverse_path == ""


async def test_content_goes_with_the_last_message_that_waits(desks) -> None:
    first, second = await keep(desks, 2)
    await desks.quarantine.discard(first, by="anna", why="made up")
    assert (await desks.quarantine.show(first))[1] is not None
    await desks.quarantine.release(second, by="anna", why="proved")

    message, content = await desks.quarantine.show(first)
    assert content is None
    assert (message.state, message.decided_by, message.decided_why) == (QuarantineState.DISCARDED, "anna", "made up")


async def test_what_was_decided_is_not_decided_again(desks, smarthost) -> None:
    first, second = await keep(desks, 2)
    await desks.quarantine.release(first, by="anna", why="proved")
    await desks.quarantine.discard(second, by="anna", why="made up")

    for message_id in (first, second):
        with pytest.raises(ActRefused, match="by anna"):
            await desks.quarantine.release(message_id, by="ben", why="again")
        with pytest.raises(ActRefused, match="by anna"):
            await desks.quarantine.discard(message_id, by="ben", why="again")
        with pytest.raises(ActRefused):
            await desks.quarantine.settle(message_id, sent=False, by="ben", why="again")
    assert len(smarthost.messages) == 1


async def test_no_such_message(desks) -> None:
    with pytest.raises(NotFound, match="T9-1"):
        await desks.quarantine.release("T9-1", by="anna", why="x")
    with pytest.raises(NotFound, match="T9-1"):
        await desks.quarantine.discard("T9-1", by="anna", why="x")
    with pytest.raises(NotFound, match="T9-1"):
        await desks.quarantine.settle("T9-1", sent=True, by="anna", why="x")


async def test_flagged_recipient_is_refused_unless_despite_flag(desks, smarthost) -> None:
    (message_id,) = await keep(desks)
    await desks.addresses.flag(parse_mailbox("xyz123@provider.example"), by="anna", reason="complaint")

    with pytest.raises(ActRefused, match="flagged"):
        await desks.quarantine.release(message_id, by="ben", why="x")
    assert smarthost.connections == []
    assert await state(desks, message_id) is QuarantineState.QUARANTINED
    await desks.quarantine.release(message_id, by="ben", why="the court said so", despite_flag=True)
    assert smarthost.messages[0].recipients == [STRANGER]


async def test_flag_set_while_the_release_is_under_way_counts(desks, smarthost, monkeypatch) -> None:
    """It is read again under the claim."""
    (message_id,) = await keep(desks)
    claim = type(desks.quarantine)._claim

    async def flag_then_claim(self, *arguments) -> None:
        await desks.addresses.flag(parse_mailbox(STRANGER), by="anna", reason="complaint")
        await claim(self, *arguments)

    monkeypatch.setattr(type(desks.quarantine), "_claim", flag_then_claim)
    with pytest.raises(ActRefused, match="flagged"):
        await desks.quarantine.release(message_id, by="ben", why="x")

    assert smarthost.connections == []
    assert await state(desks, message_id) is QuarantineState.QUARANTINED


async def test_flag_set_before_the_final_dot_counts(desks, smarthost) -> None:
    (message_id,) = await keep(desks)
    go_on = asyncio.Event()
    smarthost.data = hold(go_on)
    release = asyncio.create_task(desks.quarantine.release(message_id, by="ben", why="x"))
    await smarthost.wait_for_command("DATA")
    await desks.addresses.flag(parse_mailbox(STRANGER), by="anna", reason="complaint")
    go_on.set()
    with pytest.raises(ActRefused, match="flagged"):
        await release

    assert smarthost.messages == []
    assert await state(desks, message_id) is QuarantineState.QUARANTINED


async def test_two_operators_at_once_release_once(desks, smarthost) -> None:
    (message_id,) = await keep(desks)
    results = await asyncio.gather(
        *(desks.quarantine.release(message_id, by=name, why="proved") for name in ("anna", "ben", "carl")),
        return_exceptions=True,
    )

    assert len(smarthost.messages) == 1
    assert sum(isinstance(result, ActRefused) for result in results) == 2


@pytest.mark.parametrize(
    ("step", "action", "error"),
    [
        ("rcpt", refuse(550, "5.1.1 no such user"), ActRefused),
        ("rcpt", drop(), SmarthostUnavailable),
        ("data", refuse(451, "4.3.0 later"), ActRefused),
        ("data", hang(), SmarthostUnavailable),
        ("dot", refuse(554, "5.7.1 spam"), ActRefused),
        ("greeting", drop(), SmarthostUnavailable),
    ],
)
async def test_message_that_was_not_sent_waits_again(desks, smarthost, step, action, error) -> None:
    (message_id,) = await keep(desks)
    setattr(smarthost, step, action)
    with pytest.raises(error):
        await desks.quarantine.release(message_id, by="anna", why="proved")

    assert await state(desks, message_id) is QuarantineState.QUARANTINED
    assert [kind for kind, _, _ in await acts(desks)] == [ActKind.RELEASE_BEGIN, ActKind.RELEASE_FAIL]
    setattr(smarthost, step, None)
    await desks.quarantine.release(message_id, by="anna", why="proved")
    assert smarthost.messages[-1].code == 250


@pytest.mark.parametrize("action", [drop(), hang()])
async def test_message_whose_reply_was_lost_is_maybe_sent(desks, smarthost, action) -> None:
    """It is not sent again by itself; an operator settles it."""
    first, second = await keep(desks, 2)
    smarthost.dot = action
    for message_id in (first, second):
        with pytest.raises(SmarthostLost, match=f"{message_id} is maybe sent"):
            await desks.quarantine.release(message_id, by="anna", why="proved")
    smarthost.dot = None
    with pytest.raises(ActRefused, match="maybe-sent"):
        await desks.quarantine.release(first, by="anna", why="again")
    with pytest.raises(ActRefused, match="maybe-sent"):
        await desks.quarantine.discard(first, by="anna", why="again")
    await desks.quarantine.settle(first, sent=True, by="anna", why="it is in its log")
    await desks.quarantine.settle(second, sent=False, by="anna", why="it is not in its log")

    assert await state(desks, first) is QuarantineState.RELEASED
    assert await state(desks, second) is QuarantineState.QUARANTINED
    assert (ActKind.SETTLE, "anna", "not sent: it is not in its log") in await acts(desks)
    await desks.quarantine.release(second, by="anna", why="proved")
    assert len(smarthost.messages) == 3


async def test_release_that_is_cancelled_after_the_dot_is_maybe_sent(desks, smarthost) -> None:
    (message_id,) = await keep(desks)
    smarthost.dot = hold(asyncio.Event())
    release = asyncio.create_task(desks.quarantine.release(message_id, by="anna", why="proved"))
    await smarthost.wait_for_message()
    release.cancel()
    with pytest.raises(asyncio.CancelledError):
        await release

    assert await state(desks, message_id) is QuarantineState.MAYBE_SENT
