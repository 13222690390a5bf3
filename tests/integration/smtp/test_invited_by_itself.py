"""From mail that is kept to the Yes that lets it go: through the whole guard, on both stores."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from smtpguard.domain.invitation import Answer, AnswerOutcome
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.quarantined import QuarantineState
from smtpguard.errors import SettingsError
from smtpguard.service import confirmed_release, invitation_desk
from tests.support.eventually import eventually
from tests.support.guard import RunningGuard, guarding, put_on_record, verify
from tests.support.invitations import INVITING, VERIFICATION, text_of, token_of
from tests.support.scripted_smarthost import ScriptedSmarthost, Transaction, drop, hold
from tests.support.transcript import greeted

ANNA = "Anna@provider.example"
OF_7 = b"X-Customer-ID: 7\r\nSubject: Invoice\r\n\r\n..hello\r\n\xe4\r\n"
OF_8 = b"X-Customer-ID: 8\r\nSubject: Invoice\r\n\r\nhello\r\n"


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def guard(store_url, smarthost, nothing_outlives) -> AsyncIterator[RunningGuard]:
    async with guarding(store_url, smarthost.port, **INVITING) as guard:
        yield guard


async def send(guard: RunningGuard, *recipients: str, wire: bytes = OF_7) -> None:
    async with greeted(guard.port) as client:
        assert (await client.message(*recipients, wire=wire)).startswith("250 ")


async def answer(guard: RunningGuard, invitation: Transaction, said: Answer = Answer.YES) -> AnswerOutcome:
    return (await guard.desks.invitations.answer(token_of(invitation), said, evidence="192.0.2.1")).outcome


async def test_mail_that_waited_arrives_after_yes(guard, smarthost) -> None:
    """Byte for byte, in its order, once, and only what is for this address and this customer."""
    await put_on_record(guard.desks, [ANNA], customer="7")
    await send(guard, ANNA)
    invitation = await smarthost.wait_for_message()
    await send(guard, ANNA.lower(), wire=OF_7.replace(b"hello", b"second"))
    await send(guard, "ben@provider.example")
    waiting = await guard.waiting()
    contents = [(await guard.desks.quarantine.show(each.id))[1] for each in waiting]
    await smarthost.wait_for_message(2)  # Ben's invitation

    assert invitation.recipients == [ANNA]
    assert await answer(guard, invitation) is AnswerOutcome.CONFIRMED
    await smarthost.wait_for_message(4)
    await eventually(lambda: _waits_for(guard, ["ben@provider.example"]))

    sent = smarthost.messages[2:]
    assert [each.recipients for each in sent] == [[ANNA], [ANNA.lower()]]
    assert [each.message for each in sent] == [each.message for each in contents[:2]]
    assert {each.reverse_path for each in sent} == {"billing@shop.example"}
    await send(guard, ANNA)
    assert smarthost.messages[4].recipients == [ANNA]


async def _waits_for(guard: RunningGuard, recipients: list[str]) -> bool:
    return await guard.waiting_for() == recipients


@pytest.mark.parametrize("invites", [True, False])
async def test_yes_between_rcpt_and_the_end_of_data(store_url, smarthost, invites) -> None:
    """The message is kept, as it was answered at RCPT, and goes out behind it."""
    sections = INVITING | {"verification": VERIFICATION | {"invite_on_quarantine": invites}}
    async with guarding(store_url, smarthost.port, **sections) as guard, greeted(guard.port) as client:
        await guard.desks.invitations.invite(
            parse_mailbox(ANNA), customer="7", language=None, challenge=None, by="anna"
        )
        await client.envelope(ANNA)
        await client.ask("DATA", "354 *")
        assert await answer(guard, smarthost.messages[0]) is AnswerOutcome.CONFIRMED
        await eventually(lambda: guard.desks.invitations._release._places._value == confirmed_release.RELEASES_AT_ONCE)
        await client.send_octets(OF_7 + b".\r\n")
        await client.expect("250 *")
        sent = await smarthost.wait_for_message(2)
        await eventually(lambda: _waits_for(guard, []))

    assert sent.message.endswith(b"Subject: Invoice\r\n\r\n.hello\r\n\xe4\r\n")
    assert len(smarthost.messages) == 2


async def test_release_names_the_voucher(guard, smarthost) -> None:
    await send(guard, ANNA)
    await answer(guard, await smarthost.wait_for_message())
    await eventually(lambda: _waits_for(guard, []))
    [message] = await guard.desks.quarantine.list(limit=0, states=[QuarantineState.RELEASED])
    acts = [each.act for each in reversed(await guard.desks.store.audit_log.list(limit=0, after=None))]

    assert [each.kind.value for each in acts] == ["invite", "confirm", "release-begin", "release-end"]
    assert [each.actor for each in acts] == ["smtpguard", "recipient", "recipient", "recipient"]
    assert {each.why for each in acts[2:]} == {message.decided_why} == {"confirmed by the recipient, voucher 1"}


async def test_unknown_address_stays_unknown_until_yes(guard, smarthost) -> None:
    await send(guard, ANNA)
    invitation = await smarthost.wait_for_message()
    record = await guard.desks.addresses.show(parse_mailbox(ANNA))

    assert record.standing(guard.desks.clock()).value == "unknown"
    await answer(guard, invitation)
    record = await guard.desks.addresses.show(parse_mailbox(ANNA))
    assert record.standing(guard.desks.clock()).value == "verified"


async def test_no_stops_the_mail_and_what_waits_stays(guard, smarthost) -> None:
    await send(guard, ANNA)
    assert await answer(guard, await smarthost.wait_for_message(), Answer.NO) is AnswerOutcome.DISOWNED
    await send(guard, ANNA)

    assert [each.reason.value for each in await guard.waiting()] == ["unknown", "flagged"]
    assert len(smarthost.messages) == 1


async def test_one_invitation_for_many_messages(guard, smarthost) -> None:
    await asyncio.gather(*(send(guard, ANNA) for _ in range(6)))
    await smarthost.wait_for_message()
    await eventually(lambda: not guard.guard.invitations._by_itself._working)

    assert len(smarthost.messages) == 1
    assert len(await guard.waiting()) == 6


@pytest.mark.parametrize("why", ["flagged", "shared", "unclear", "address-wide voucher of a shared address"])
async def test_not_invited(guard, smarthost, why) -> None:
    wire = OF_7
    match why:
        case "flagged":
            await guard.desks.addresses.flag(parse_mailbox(ANNA), by="anna", reason="complaint")
        case "shared":
            await put_on_record(guard.desks, [ANNA], customer="8")
        case "unclear":
            wire = b"X-Customer-ID: 1\r\nX-Customer-ID: 2\r\n\r\n"
        case _:
            await verify(guard.desks, ANNA)
            await put_on_record(guard.desks, [ANNA], customer="8")
    await send(guard, ANNA, wire=wire)
    await send(guard, "last@provider.example")
    await smarthost.wait_for_message()
    await eventually(lambda: not guard.guard.invitations._by_itself._working)

    assert [each.recipients for each in smarthost.messages] == [["last@provider.example"]]


async def test_address_that_turns_out_to_be_shared_is_not_invited_again(guard, smarthost) -> None:
    """The mail of a second customer puts the pair on record."""
    await send(guard, ANNA)
    await smarthost.wait_for_message()
    await send(guard, ANNA, wire=OF_8)
    await send(guard, "last@provider.example")
    await smarthost.wait_for_message(2)

    assert [each.recipients for each in smarthost.messages] == [[ANNA], ["last@provider.example"]]


async def test_kept_message_of_a_relayed_transaction(guard, smarthost) -> None:
    await verify(guard.desks, "ben@verified.example", customer="7")
    await send(guard, "ben@verified.example", ANNA)
    await smarthost.wait_for_message(2)

    assert [each.recipients for each in smarthost.messages] == [["ben@verified.example"], [ANNA]]


async def test_transaction_that_failed_invites_nobody(guard, smarthost) -> None:
    await verify(guard.desks, "ben@verified.example", customer="7")
    smarthost.dot = drop()
    async with greeted(guard.port) as client:
        assert (await client.message("ben@verified.example", ANNA, wire=OF_7)).startswith("451 ")
    smarthost.dot = None
    await send(guard, "last@provider.example")
    await smarthost.wait_for_message(2)

    assert [each.recipients for each in smarthost.messages[1:]] == [["last@provider.example"]]


async def test_invitation_that_fails_does_not_concern_the_transaction(guard, smarthost) -> None:
    smarthost.mail = drop()
    with capture_logs() as logs:
        await send(guard, ANNA)
        await eventually(lambda: any(each["event"] == "invitation-failed" for each in logs))

    assert await guard.waiting_for() == [ANNA]
    assert smarthost.messages == []


async def test_slow_smarthost_holds_up_nobody(guard, smarthost, monkeypatch) -> None:
    """Some are on their way, some wait, and what finds no place is skipped and logged."""
    monkeypatch.setattr(guard.guard.invitations._by_itself, "_max_waiting", 2)
    go_on = asyncio.Event()
    smarthost.mail = hold(go_on)
    with capture_logs() as logs:
        for number in range(invitation_desk.ERRANDS_AT_ONCE):
            await send(guard, f"user{number}@provider.example")
        await smarthost.wait_for_command("MAIL", invitation_desk.ERRANDS_AT_ONCE)
        for number in range(4):
            await send(guard, f"late{number}@provider.example")
    smarthost.mail = None
    go_on.set()
    await smarthost.wait_for_message(invitation_desk.ERRANDS_AT_ONCE + 2)

    skipped = [each["recipient"] for each in logs if each["event"] == "invitation-skipped"]
    assert skipped == ["late2@provider.example", "late3@provider.example"]
    assert len(await guard.waiting()) == invitation_desk.ERRANDS_AT_ONCE + 4


@pytest.mark.parametrize(
    "sections",
    [
        {"verification": VERIFICATION | {"invite_on_quarantine": False}},
        {"web": {"public_url": ""}},
        {"policy": {"unverified": "reject"}},
        {"policy": {"mode": "observe"}},
    ],
    ids=str,
)
async def test_nobody_is_invited(sqlite_url, smarthost, sections) -> None:
    async with guarding(sqlite_url, smarthost.port, **INVITING | sections) as guard, greeted(guard.port) as client:
        await client.ask("MAIL FROM:<billing@shop.example>", "250 *")
        await client.ask(f"RCPT TO:<{ANNA}>", "*")
        await client.send_octets(b"DATA\r\n")
        if (await client.reply()).startswith("354 "):
            await client.send_octets(OF_7 + b".\r\n")
            await client.reply()
        await eventually(lambda: not guard.guard.invitations._by_itself._working)

    assert [each for each in smarthost.messages if b"Auto-Submitted" in each.message] == []


async def test_guard_ends_though_invitations_wait(sqlite_url, smarthost) -> None:
    smarthost.mail = hold(asyncio.Event())
    async with guarding(sqlite_url, smarthost.port, **INVITING) as guard:
        for number in range(invitation_desk.ERRANDS_AT_ONCE * 2):
            await send(guard, f"user{number}@provider.example")
        await smarthost.wait_for_command("MAIL", invitation_desk.ERRANDS_AT_ONCE)

    assert smarthost.messages == []


async def test_template_of_the_organisation_wins(sqlite_url, smarthost, tmp_path) -> None:
    (tmp_path / "invitation.en.txt").write_text("Salve {{ link }} {{ ends }} {{ organisation }}")
    own = INVITING | {"verification": VERIFICATION | {"templates": tmp_path}}
    async with guarding(sqlite_url, smarthost.port, **own) as guard:
        await send(guard, ANNA)
        assert text_of(await smarthost.wait_for_message()).startswith("Salve https://")


@pytest.mark.parametrize(
    "template", ["{{ customer }} {{ link }}", "{% if %}", "no link", "{{ link.x.y }} {{ link }}", "\udcff"], ids=ascii
)
async def test_guard_does_not_start_with_a_broken_template(sqlite_url, smarthost, tmp_path, template) -> None:
    (tmp_path / "disown.fr.html").write_text(template, errors="surrogateescape")
    own = INVITING | {"verification": VERIFICATION | {"templates": tmp_path}}
    with pytest.raises(SettingsError, match=r"verification\.templates: .*disown\.fr\.html: "):
        async with guarding(sqlite_url, smarthost.port, **own):
            pass
