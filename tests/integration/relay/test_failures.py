"""Every step of the dialogue against everything that a smarthost can do wrong there."""

import asyncio
import os
from collections.abc import Callable, Sequence

import pytest

from smtpguard.domain.envelope import ForwardPath
from smtpguard.domain.reply import Reply
from smtpguard.errors import SmarthostLost, SmarthostUnavailable
from smtpguard.relay.connection import UPLOAD_SLICE_OCTETS
from smtpguard.relay.smarthost import Smarthost, SmarthostTransaction
from smtpguard.settings import SmarthostSettings
from tests.integration.relay.deliveries import ALICE, BOB, CAROL, NO_PIPELINING, WIRE, begin, chunks, deliver
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import (
    CAPABILITIES,
    Action,
    ScriptedSmarthost,
    Session,
    drop,
    hang,
    hold,
    in_turn,
    raw,
    refuse,
    reply,
    reset,
    sequence,
    usual,
)

SHORT = 0.05
TIMEOUT_OF = {
    "greeting": "connect_timeout",
    "ehlo": "connect_timeout",
    "mail": "command_timeout",
    "rcpt": "command_timeout",
    "data": "data_timeout",
    "dot": "reply_timeout",
}
REFUSALS = {
    "4yz": (refuse(451, "4.3.0 try again"), "451 4.3.0 try again"),
    "5yz": (refuse(554, "5.7.1 no"), "554 5.7.1 no"),
    "multi-line": (reply(550, "5.1.1 no", "5.1.1 such", "5.1.1 user"), "550 5.1.1 no such user"),
    "non-ASCII": (reply(550, "5.1.1 grüß Gott \x07"), "550 5.1.1 gr? Gott ?"),
    "without text": (raw(b"550\r\n"), "550"),
}
BREAKAGES = {
    "hang": (hang(), "within"),
    "drop": (drop(), "connection"),
    "reset": (reset(), "connection"),
    "half a reply": (sequence(raw(b"250-ok\r\n250 o"), drop()), "connection"),
    "garbage": (raw(b"\x00\xff\r\n\r\n"), "not an SMTP reply"),
    "another protocol": (raw(b"SSH-2.0-OpenSSH\r\n"), "SSH-2.0"),
    "bare LF": (raw(b"250 ok\n"), "not an SMTP reply"),
    "overlong line": (raw(b"250 " + b"x" * 3000), "octets"),
    "too many lines": (raw(b"250-x\r\n" * 200), "lines"),
    "two codes": (raw(b"250-x\r\n550 y\r\n"), "not an SMTP reply"),
    "1yz": (raw(b"150 wait\r\n"), "not an SMTP reply"),
    "3yz": (reply(334, "go on"), "334 go on"),
}
BEFORE_THE_DOT = [step for step in TIMEOUT_OF if step != "dot"]
pipelining = pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING], ids=["pipelined", "step-by-step"])


async def attempt(smarthost: Smarthost, recipients: Sequence[ForwardPath] = (ALICE, BOB)) -> Reply:
    """Send a message as far as it goes, and end the transaction as the guard does; return the last reply."""
    transaction = begin(smarthost)
    try:
        *_, last = await transaction.rcpt(recipients)
        if last.is_positive:
            last = await transaction.send_body(chunks(WIRE))
        if last.code == 354:
            last = await transaction.finish()
        return last
    finally:
        await transaction.abort()


@pipelining
@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("fault", REFUSALS)
async def test_a_refusal_is_passed_on_and_the_connection_kept(relay_to, capabilities, step: str, fault: str) -> None:
    action, expected = REFUSALS[fault]
    script = in_turn(action, action) if step == "rcpt" else in_turn(action)  # there are two recipients
    async with ScriptedSmarthost(capabilities=capabilities, **{step: script}) as scripted:
        smarthost = relay_to(scripted)

        assert str(await attempt(smarthost)) == expected
        await deliver(smarthost, [CAROL])
        assert len(scripted.connections) == 1
        assert scripted.messages[-1].recipients == ["carol@x.test"]


@pipelining
@pytest.mark.parametrize("step", BEFORE_THE_DOT)
@pytest.mark.parametrize("fault", BREAKAGES)
async def test_a_breakage_before_the_dot_is_unavailable(relay_to, capabilities, step: str, fault: str) -> None:
    action, words = BREAKAGES[fault]
    timeout = {TIMEOUT_OF[step]: SHORT} if fault == "hang" else {}
    async with ScriptedSmarthost(capabilities=capabilities, **{step: action}) as scripted:
        smarthost = relay_to(scripted, **timeout)

        with pytest.raises(SmarthostUnavailable, match=words) as caught:
            await attempt(smarthost)

        assert str(caught.value).isprintable()
        await scripted.wait_until_closed()
        assert len(scripted.connections) == 1
        assert not scripted.messages
        assert smarthost._pool.idle == 0


@pytest.mark.parametrize("fault", BREAKAGES)
async def test_a_breakage_after_the_dot_is_lost(relay_to, fault: str) -> None:
    action, words = BREAKAGES[fault]
    timeout = {"reply_timeout": SHORT} if fault == "hang" else {}
    async with ScriptedSmarthost(dot=action) as scripted:
        smarthost = relay_to(scripted, **timeout)

        with pytest.raises(SmarthostLost, match=f"{words}.*after the final dot"):
            await attempt(smarthost)

        await scripted.wait_until_closed()
        assert len(scripted.messages) == 1
        assert smarthost._pool.idle == 0


@pipelining
@pytest.mark.parametrize("step", BEFORE_THE_DOT)
async def test_421_before_the_dot_is_unavailable(relay_to, capabilities, step: str) -> None:
    async with ScriptedSmarthost(capabilities=capabilities, **{step: refuse(421, "4.3.2 closing")}) as scripted:
        smarthost = relay_to(scripted)

        with pytest.raises(SmarthostUnavailable, match=r"421 4\.3\.2 closing"):
            await attempt(smarthost)

        await scripted.wait_until_closed()
        assert smarthost._pool.idle == 0


async def test_421_to_the_dot_is_an_answer(relay_to) -> None:
    async with ScriptedSmarthost(dot=refuse(421, "4.3.2 closing")) as scripted:
        smarthost = relay_to(scripted)

        assert str(await attempt(smarthost)) == "421 4.3.2 closing"
        await scripted.wait_until_closed()
        assert smarthost._pool.idle == 0


@pytest.mark.parametrize("code", [220, 250, 299])
async def test_2yz_to_data_is_nonsense(relay_to, code: int) -> None:
    async with ScriptedSmarthost(data=reply(code, "ok")) as scripted:
        with pytest.raises(SmarthostUnavailable, match=str(code)):
            await attempt(relay_to(scripted))

        await scripted.wait_until_closed()
        assert not scripted.messages


@pytest.mark.parametrize("step", ["greeting", "helo", "ehlo"])
@pytest.mark.parametrize("code", [450, 550])
async def test_a_smarthost_that_does_not_want_to_talk(relay_to, step: str, code: int) -> None:
    script = {"ehlo": refuse(500, "what?")} | {step: refuse(code, "4.7.0 not with you")}
    if step == "ehlo" and code == 550:
        script["helo"] = refuse(550, "nor so")
    async with ScriptedSmarthost(**script) as scripted:
        with pytest.raises(SmarthostUnavailable, match=str(code)):
            await attempt(relay_to(scripted))

        await scripted.wait_until_closed()


async def test_nobody_listens(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
    with pytest.raises(SmarthostUnavailable, match=rf"smarthost 127\.0\.0\.1:{scripted.port}: cannot connect"):
        await attempt(smarthost)


@pytest.mark.parametrize("host", ["bad..host", "x" * 70, "-"])
async def test_a_name_that_does_not_resolve(host: str) -> None:
    smarthost = Smarthost(SmarthostSettings(host=host), hostname="guard.test")

    with pytest.raises(SmarthostUnavailable, match="cannot connect"):
        await attempt(smarthost)
    assert smarthost._pool.borrowed == 0


async def test_connect_timeout_covers_greeting_and_ehlo_together(relay_to) -> None:
    """Each comes in time, both together do not."""

    async def late(session: Session) -> None:
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.15)
        await usual()(session)

    async with ScriptedSmarthost(greeting=late, ehlo=late) as scripted:
        with pytest.raises(SmarthostUnavailable, match=r"not ready within 0\.2 s"):
            await attempt(relay_to(scripted, connect_timeout=0.2))


async def test_a_refusal_of_mail_stands_when_the_smarthost_hangs_up_on_it(relay_to) -> None:
    async with ScriptedSmarthost(mail=sequence(refuse(554, "5.7.1 go away"), drop())) as scripted:
        smarthost = relay_to(scripted)

        assert str(await attempt(smarthost)) == "554 5.7.1 go away"
        assert len(scripted.connections) == 1
        assert smarthost._pool.idle == 0


async def test_recipients_answered_before_the_smarthost_hangs_up(relay_to) -> None:
    """All or nothing: a transaction that is over has no accepted recipients."""
    async with ScriptedSmarthost(rcpt={"bob@x.test": drop()}) as scripted:
        with pytest.raises(SmarthostUnavailable):
            await begin(relay_to(scripted)).rcpt([ALICE, BOB, CAROL])

        assert len(scripted.connections) == 1


async def send_body_and_later_the_dot(transaction: SmarthostTransaction, wire: bytes) -> None:
    connection = transaction._connection
    assert connection is not None
    await transaction.send_body(chunks(wire))
    await eventually(lambda: not connection.is_clean)
    await transaction.finish()


EARLY = {
    "250": b"250 2.0.0 queued\r\n",
    "354": b"354 go ahead\r\n",
    "421": b"421 4.3.2 closing\r\n",
    "half a reply": b"250-2.0.0 que",
}


@pytest.mark.parametrize("early", EARLY)
@pytest.mark.parametrize("offset", [0, 10, 500_000])
async def test_a_reply_before_the_dot_is_not_the_reply_to_the_dot(relay_to, early: str, offset: int) -> None:
    """And nothing was delivered, since no dot went out."""
    wire = b"x" * 998 + b"\r\n"
    wire *= 1 if offset < 1000 else 20_000
    async with ScriptedSmarthost(body={offset: raw(EARLY[early])}) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        with pytest.raises(SmarthostUnavailable, match="unasked"):
            await send_body_and_later_the_dot(transaction, wire)

        await scripted.wait_until_closed()
        assert not scripted.messages
        assert smarthost._pool.idle == 0


@pytest.mark.parametrize("early", EARLY)
async def test_a_reply_that_lies_in_the_kernel_is_not_the_reply_to_the_dot(relay_to, early: str) -> None:
    """The event loop has had no chance to read it when the dot would go out."""
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])
        await transaction.send_body(chunks(WIRE))
        os.write(scripted.connections[0].writer.get_extra_info("socket").fileno(), EARLY[early])
        with pytest.raises(SmarthostUnavailable, match="unasked"):
            await transaction.finish()

        await scripted.wait_until_closed()
        assert not scripted.messages


@pytest.mark.parametrize("end", [drop, reset])
async def test_a_connection_that_ends_before_the_dot_gets_none(relay_to, end: Callable[[], Action]) -> None:
    async with ScriptedSmarthost(body={len(WIRE): end()}) as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])
        await transaction.send_body(chunks(WIRE))
        await scripted.wait_until_closed()
        with pytest.raises(SmarthostUnavailable):
            await transaction.finish()

        assert not scripted.messages
        assert scripted.transactions[0].wire == WIRE


@pytest.mark.parametrize("end", [drop, reset])
async def test_a_connection_that_ends_in_the_body(relay_to, end: Callable[[], Action]) -> None:
    async with ScriptedSmarthost(body={100_000: end()}) as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])
        with pytest.raises(SmarthostUnavailable):
            await transaction.send_body(chunks(b"x" * 20_000_000 + b"\r\n"))

        assert not scripted.messages


@pytest.mark.parametrize("slice_octets", [UPLOAD_SLICE_OCTETS, 30_000_000])
async def test_a_smarthost_that_reads_slowly_is_not_blocked(relay_to, monkeypatch, slice_octets: int) -> None:
    """The upload, or even one slice of it, takes longer than block_timeout; no stretch without progress does."""
    monkeypatch.setattr("smtpguard.relay.connection.UPLOAD_SLICE_OCTETS", slice_octets)
    loop = asyncio.get_running_loop()

    async def breathe(_: Session) -> None:
        await asyncio.wait([loop.create_future()], timeout=0.06)

    pauses = {n * 500_000: breathe for n in range(16)}
    async with ScriptedSmarthost(body=pauses, receive_buffer=65536) as scripted:
        transaction = begin(relay_to(scripted, block_timeout=0.7))
        await transaction.rcpt([ALICE])
        begun = loop.time()
        await transaction.send_body(chunks(b"x" * 12_000_000 + b"\r\n"))
        took = loop.time() - begun
        await transaction.finish()

        assert took > 0.7
        assert len(scripted.messages[0].wire) == 12_000_002


async def test_a_reply_with_more_behind_it_counts_and_ends_the_connection(relay_to) -> None:
    async with ScriptedSmarthost(dot=raw(b"250 2.0.0 queued\r\n421 4.3.2 and now closing\r\n")) as scripted:
        smarthost = relay_to(scripted)

        assert str(await attempt(smarthost)) == "250 2.0.0 queued"
        await scripted.wait_until_closed()
        assert smarthost._pool.idle == 0


async def test_the_last_word_before_the_end_counts(relay_to) -> None:
    async with ScriptedSmarthost(dot=sequence(usual(), drop())) as scripted:
        assert str(await attempt(relay_to(scripted))) == "250 2.0.0 queued as 1"


async def test_words_between_two_commands_break_the_connection(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])
        connection = transaction._connection
        assert connection is not None
        scripted.connections[0].say(b"250 2.1.5 another one\r\n")
        await eventually(lambda: bool(connection._broken))
        with pytest.raises(SmarthostUnavailable, match="unasked: 250"):
            await transaction.send_body(chunks(WIRE))

        assert scripted.count("DATA") == 0


@pipelining
async def test_one_reply_too_many_shifts_no_delivery(relay_to, capabilities) -> None:
    """A stray reply makes each that follows the reply to the command before; nothing must come of it."""
    refused = {"alice@x.test": refuse(550, "5.1.1 no")}
    async with ScriptedSmarthost(capabilities=capabilities, rcpt=refused) as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost, [CAROL])
        scripted.mail = sequence(raw(b"250 2.0.0 stray\r\n"), usual())
        with pytest.raises(SmarthostUnavailable):
            await attempt(smarthost, [ALICE, BOB, CAROL])

        assert len(scripted.messages) == 1


async def test_recipients_are_not_answered_by_a_smarthost_that_says_too_much(relay_to) -> None:
    async with ScriptedSmarthost(rcpt=raw(b"250 2.1.5 ok\r\n250 2.1.5 ok\r\n")) as scripted:
        with pytest.raises(SmarthostUnavailable, match="unasked"):
            await begin(relay_to(scripted)).rcpt([ALICE])


async def test_a_refused_recipient_hears_so_even_if_the_smarthost_then_leaves(relay_to) -> None:
    async with ScriptedSmarthost(rcpt=raw(b"550 5.1.1 no\r\n421 4.7.0 too many errors\r\n")) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)

        assert [str(reply) for reply in await transaction.rcpt([ALICE])] == ["550 5.1.1 no"]
        await transaction.abort()
        assert smarthost._pool.idle == 0


async def test_a_held_reply_is_waited_for(relay_to) -> None:
    event = asyncio.Event()
    async with ScriptedSmarthost(dot=hold(event)) as scripted:
        delivery = asyncio.create_task(deliver(relay_to(scripted)))
        await scripted.wait_for_message()
        assert not delivery.done()
        event.set()

        assert (await delivery).is_positive
