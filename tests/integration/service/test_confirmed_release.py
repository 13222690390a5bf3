"""What a Yes lets go, and what stops it, on both stores."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from smtpguard.app import Desks, clock, open_desks
from smtpguard.domain.decision import Reason
from smtpguard.domain.envelope import NO_MAIL_PARAMETERS, NULL_REVERSE_PATH
from smtpguard.domain.ids import quarantined_id
from smtpguard.domain.invitation import Answer, AnswerOutcome
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.message import HeaderSummary
from smtpguard.domain.quarantined import QuarantinedMessage, QuarantineState
from tests.support.eventually import eventually
from tests.support.guard import put_on_record
from tests.support.invitations import inviting_settings, token_of
from tests.support.scripted_smarthost import ScriptedSmarthost, drop, hold, in_turn, refuse, usual

ANNA = parse_mailbox("anna@example.com")
LIMITS = {"command_timeout": 5, "reply_timeout": 5, "data_timeout": 5}
WAITS, MAYBE, RELEASED = QuarantineState.QUARANTINED, QuarantineState.MAYBE_SENT, QuarantineState.RELEASED


@pytest.fixture(name="desks")
async def _desks(store_url, smarthost) -> AsyncIterator[Desks]:
    async with open_desks(inviting_settings(store_url, smarthost.port, smarthost=LIMITS)) as desks:
        yield desks


async def keep(desks: Desks, number: int, *, age: timedelta = timedelta(0), **values) -> str:
    """Put one message into quarantine; its content is its id."""
    transaction = f"T{number}"
    given = {
        "id": quarantined_id(transaction, 1),
        "transaction_id": transaction,
        "state": WAITS,
        "recipient": ANNA,
        "reverse_path": NULL_REVERSE_PATH,
        "parameters": NO_MAIL_PARAMETERS,
        "application": "crm",
        "customer": "7",
        "reason": Reason.NOT_VERIFIED,
        "received_at": clock() - age,
    }
    message = QuarantinedMessage(**given | values)
    await desks.store.quarantine.keep([message], HeaderSummary("", "", "", ""), [b"%b\r\n" % message.id.encode()])
    return message.id


async def confirm(desks: Desks, smarthost: ScriptedSmarthost, customer: str | None = "7") -> AnswerOutcome:
    """Invite, and say Yes."""
    await desks.invitations.invite(ANNA, customer=customer, language=None, challenge=None, by="anna")
    token = token_of(smarthost.messages.pop())
    return (await desks.invitations.answer(token, Answer.YES, evidence="192.0.2.1")).outcome


def sent(smarthost: ScriptedSmarthost) -> list[str]:
    """The ids of what came out."""
    return [each.message.decode().strip() for each in smarthost.messages if each.code == 250]


async def ended(logs: list[dict]) -> dict:
    """Wait for the end of a release, and return its line."""

    def lines() -> list[dict]:
        return [each for each in logs if each["event"] == "confirmed-mail-released"]

    await eventually(lambda: bool(lines()))
    return lines()[-1]


async def states(desks: Desks) -> dict[str, QuarantineState]:
    return {each.id: each.state for each in await desks.quarantine.list(limit=0, states=frozenset(QuarantineState))}


async def test_what_is_let_go_and_what_is_not(desks, smarthost) -> None:
    second, first = await keep(desks, 2), await keep(desks, 1, reason=Reason.UNKNOWN)
    third = await keep(desks, 3, reason=Reason.NOT_VERIFIED_FOR_CUSTOMER, age=timedelta(days=13))
    fourth = await keep(desks, 31, reason=Reason.SHARED_ADDRESS)
    others = [
        await keep(desks, 4, age=timedelta(days=14, minutes=1)),
        await keep(desks, 5, customer="8"),
        await keep(desks, 6, customer=None),
        await keep(desks, 7, recipient=parse_mailbox("ben@example.com")),
        await keep(desks, 8, reason=Reason.FLAGGED),
        await keep(desks, 9, reason=Reason.CUSTOMER_UNCLEAR),
    ]
    with capture_logs() as logs:
        await confirm(desks, smarthost)
        line = await ended(logs)

    assert sent(smarthost) == [first, second, third, fourth]
    assert (line["released"], line["left"], line["voucher"], line["log_level"]) == (4, 0, 1, "info")
    assert {key for key, state in (await states(desks)).items() if state is WAITS} == set(others)


async def test_mail_of_a_shared_address_is_released_and_invites_nobody(desks, smarthost) -> None:
    """Kept just before the Yes, it goes out behind it; without one it waits for an operator who asks."""
    for customer in ("7", "8"):
        await put_on_record(desks, [ANNA.text, "ben@example.com"], customer=customer)
    of_ben = await keep(desks, 1, reason=Reason.SHARED_ADDRESS, recipient=parse_mailbox("ben@example.com"))
    with capture_logs() as logs:
        await confirm(desks, smarthost)
        await ended(logs)
    of_anna = await keep(desks, 2, reason=Reason.SHARED_ADDRESS)
    desks.invitations.take_kept([await desks.store.quarantine.get(each) for each in (of_ben, of_anna)])
    await smarthost.wait_for_message()
    await eventually(lambda: not desks.invitations._by_itself._working)

    assert sent(smarthost) == [of_anna]
    assert (await states(desks))[of_ben] is WAITS


async def test_yes_of_the_address_alone_lets_go_what_names_no_customer(desks, smarthost) -> None:
    await keep(desks, 1, customer="7")
    named_none = await keep(desks, 2, customer=None)
    with capture_logs() as logs:
        await confirm(desks, smarthost, customer=None)
        await ended(logs)

    assert sent(smarthost) == [named_none]


async def test_flag_set_while_it_runs_stops_it_before_the_next_dot(desks, smarthost) -> None:
    ids = [await keep(desks, number) for number in range(1, 5)]
    go_on = asyncio.Event()
    with capture_logs() as logs:
        await desks.invitations.invite(ANNA, customer="7", language=None, challenge=None, by="anna")
        token = token_of(smarthost.messages.pop())
        smarthost.data = in_turn(usual(), hold(go_on))
        await desks.invitations.answer(token, Answer.YES, evidence="x")
        await smarthost.wait_for_command("DATA", 3)  # of the invitation, of the first message and of the second
        assert (await desks.invitations.answer(token, Answer.NO, evidence="x")).outcome is AnswerOutcome.DISOWNED
        go_on.set()
        line = await ended(logs)

    assert sent(smarthost) == ids[:1]
    assert (line["released"], line["left"], line["log_level"]) == (1, 3, "error")
    assert "flagged" in line["error"]
    assert list((await states(desks)).values()) == [RELEASED, WAITS, WAITS, WAITS]


async def test_two_nodes_release_once(desks, smarthost, store_url) -> None:
    ids = [await keep(desks, number) for number in range(1, 6)]
    with capture_logs() as logs:
        async with open_desks(inviting_settings(store_url, smarthost.port)) as others:
            await desks.addresses.verify(ANNA, customer="7", by="anna", why="x")
            await desks.invitations.invite(ANNA, customer="7", language=None, challenge=None, by="anna")
            invitation = await desks.store.invitations.find(digest_of(token_of(smarthost.messages.pop())))
            for each in (desks, others, desks):
                each.invitations._release.begin(invitation, 1)
            await eventually(lambda: sum(each["event"] == "confirmed-mail-released" for each in logs) == 3)

    assert sorted(sent(smarthost)) == ids
    assert set((await states(desks)).values()) == {RELEASED}


def digest_of(token: str) -> str:
    from smtpguard.domain.invitation import parse_token, token_digest

    return token_digest(parse_token(token) or b"")


async def test_message_that_the_smarthost_refuses_holds_up_no_other(desks, smarthost) -> None:
    ids = [await keep(desks, number) for number in range(1, 4)]
    with capture_logs() as logs:
        await desks.invitations.invite(ANNA, customer="7", language=None, challenge=None, by="anna")
        token = token_of(smarthost.messages.pop())
        smarthost.dot = in_turn(refuse(554, "5.7.1 spam"))
        await desks.invitations.answer(token, Answer.YES, evidence="x")
        line = await ended(logs)

    assert sent(smarthost) == ids[1:]
    assert (line["released"], line["left"]) == (2, 1)
    assert (await states(desks))[ids[0]] is WAITS


@pytest.mark.parametrize(("step", "first"), [("mail", WAITS), ("dot", MAYBE)])
async def test_smarthost_that_goes_away_stops_it(desks, smarthost, step, first) -> None:
    ids = [await keep(desks, number) for number in range(1, 4)]
    with capture_logs() as logs:
        await desks.invitations.invite(ANNA, customer="7", language=None, challenge=None, by="anna")
        token = token_of(smarthost.messages.pop())
        setattr(smarthost, step, drop())
        await desks.invitations.answer(token, Answer.YES, evidence="x")
        line = await ended(logs)

    assert line["log_level"] == "error"
    assert (line["released"], line["left"]) == (0, 3)
    assert await states(desks) == dict(zip(ids, [first, WAITS, WAITS], strict=True))


async def test_revoked_voucher_lets_nothing_go(desks, smarthost) -> None:
    """It is decided again for each message."""
    await put_on_record(desks, [ANNA.text], customer="7")
    await keep(desks, 1)
    await desks.invitations.invite(ANNA, customer="7", language=None, challenge=None, by="anna")
    invitation = await desks.store.invitations.find(digest_of(token_of(smarthost.messages.pop())))
    with capture_logs() as logs:
        desks.invitations._release.begin(invitation, 1)
        line = await ended(logs)

    assert (line["released"], line["left"]) == (0, 1)
    assert smarthost.messages == []


async def test_guard_that_ends_finishes_the_message_under_way(desks, smarthost) -> None:
    ids = [await keep(desks, number) for number in range(1, 4)]
    go_on = asyncio.Event()
    with capture_logs() as logs:
        await desks.invitations.invite(ANNA, customer="7", language=None, challenge=None, by="anna")
        token = token_of(smarthost.messages.pop())
        smarthost.data = hold(go_on)
        await desks.invitations.answer(token, Answer.YES, evidence="x")
        await smarthost.wait_for_command("DATA", 2)
        desks.invitations.close()
        go_on.set()
        line = await ended(logs)

    assert (line["released"], line["left"], line["error"]) == (1, 2, "the guard ends")
    assert await states(desks) == dict(zip(ids, [RELEASED, WAITS, WAITS], strict=True))
