"""A transaction with a smarthost that behaves: what goes over the wire, and what comes back."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.domain.envelope import NULL_REVERSE_PATH, Body, ForwardPath, RcptParameters
from smtpguard.domain.mailbox import Mailbox, parse_mailbox
from smtpguard.domain.message import stuff
from smtpguard.domain.reply import R550_NO_SMTPUTF8, R554_NO_8BITMIME
from smtpguard.errors import SmarthostUnavailable
from smtpguard.relay.connection import UPLOAD_SLICE_OCTETS
from smtpguard.relay.smarthost import Smarthost
from tests.integration.relay.deliveries import ALICE, BOB, CAROL, NO_PIPELINING, WIRE, begin, chunks, deliver
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import ScriptedSmarthost, hold, refuse, reply


async def test_a_message_is_delivered(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        final = await deliver(relay_to(scripted), [ALICE, BOB])

        message = await scripted.wait_for_message()
        assert str(final) == "250 2.0.0 queued as 1"
        assert message.reverse_path == "app@corp.test"
        assert message.recipients == ["alice@x.test", "bob@x.test"]
        assert message.wire == WIRE
        assert message.message == b"Subject: hi\r\n\r\nYour invoice.\r\n.\r\n"


async def test_mail_and_recipients_go_out_in_one_flight(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        await deliver(relay_to(scripted), [ALICE, BOB])

        assert scripted.connections[0].flights == [
            ["EHLO guard.test"],
            ["MAIL FROM:<app@corp.test>", "RCPT TO:<alice@x.test>", "RCPT TO:<bob@x.test>"],
            ["DATA"],
        ]


async def test_without_pipelining_each_command_waits_for_the_reply_before(relay_to) -> None:
    async with ScriptedSmarthost(capabilities=NO_PIPELINING) as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost, [ALICE, BOB])
        await deliver(smarthost, [CAROL])

        flights = scripted.connections[0].flights
        assert all(len(flight) == 1 for flight in flights)
        assert [flight[0].split(" ")[0] for flight in flights] == (
            ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", "MAIL", "RCPT", "DATA"]
        )


async def test_a_server_that_knows_only_helo(relay_to) -> None:
    async with ScriptedSmarthost(ehlo=refuse(502, "5.5.1 what?")) as scripted:
        await deliver(relay_to(scripted), [ALICE, BOB])

        assert scripted.connections[0].flights[:4] == [
            ["EHLO guard.test"],
            ["HELO guard.test"],
            ["MAIL FROM:<app@corp.test>"],
            ["RCPT TO:<alice@x.test>"],
        ]


@pytest.mark.parametrize(
    ("capabilities", "body", "size", "expected"),
    [
        (("8BITMIME", "SIZE 1000"), Body.EIGHT_BIT_MIME, 17, ("BODY=8BITMIME", "SIZE=17")),
        (("8bitmime", "size"), Body.EIGHT_BIT_MIME, 17, ("BODY=8BITMIME", "SIZE=17")),
        (("8BITMIME", "SIZE 1000"), Body.SEVEN_BIT, None, ()),
        (("8BITMIME", "SIZE 1000"), None, 0, ("SIZE=0",)),
        (("PIPELINING",), Body.SEVEN_BIT, 17, ()),
    ],
)
async def test_only_parameters_that_are_asked_for_and_offered(relay_to, capabilities, body, size, expected) -> None:
    async with ScriptedSmarthost(capabilities=capabilities) as scripted:
        transaction = begin(relay_to(scripted), body=body, size=size)
        await transaction.rcpt([ALICE])
        await transaction.abort()

        assert scripted.transactions[0].parameters == expected


async def test_parameters_go_out_as_they_were_given(relay_to) -> None:
    alice = ForwardPath(ALICE.recipient, RcptParameters(notify="success,FAILURE", orcpt="rfc822;Alice+2B@x.test"))
    async with ScriptedSmarthost(capabilities=("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN")) as scripted:
        body = Body.EIGHT_BIT_MIME
        transaction = begin(relay_to(scripted), body=body, smtputf8=True, ret="HDRS", envid="QQ+2B314159")
        await transaction.rcpt([alice, BOB])
        await transaction.restart([alice])
        await transaction.abort()

        mail = "MAIL FROM:<app@corp.test> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B314159"
        rcpt = "RCPT TO:<alice@x.test> NOTIFY=success,FAILURE ORCPT=rfc822;Alice+2B@x.test"
        assert scripted.connections[0].flights[1:] == [[mail, rcpt, "RCPT TO:<bob@x.test>"], ["RSET", mail, rcpt]]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [({"smtputf8": True}, R550_NO_SMTPUTF8), ({"body": Body.EIGHT_BIT_MIME}, R554_NO_8BITMIME)],
)
@pytest.mark.parametrize("capabilities", [("PIPELINING",), ()])
async def test_what_the_smarthost_could_only_take_changed_is_refused(
    relay_to, parameters, expected, capabilities
) -> None:
    """Every recipient hears it, and the smarthost nothing."""
    async with ScriptedSmarthost(capabilities=capabilities) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost, **parameters)

        assert await transaction.rcpt([ALICE, BOB]) == [expected, expected]
        assert await transaction.rcpt([CAROL]) == [expected]
        await transaction.abort()
        assert scripted.connections[0].commands == ["EHLO guard.test"]
        await deliver(smarthost)
        assert len(scripted.connections) == 1


async def test_the_null_reverse_path(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted), reverse_path=NULL_REVERSE_PATH)
        await transaction.rcpt([ALICE])
        await transaction.abort()

        assert "MAIL FROM:<>" in scripted.connections[0].commands


@pytest.mark.parametrize("text", ['"a b\\"c"@X.Test', "o'Neil+Tag@Sub.EXAMPLE", "x@[192.0.2.1]", "Postmaster"])
async def test_addresses_go_out_as_they_came_in(relay_to, text: str) -> None:
    mailbox = parse_mailbox(text)
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted), reverse_path=mailbox)
        await transaction.rcpt([ForwardPath(mailbox)])
        await transaction.abort()

        assert scripted.connections[0].commands[1:] == [f"MAIL FROM:<{text}>", f"RCPT TO:<{text}>"]


async def test_further_recipients_join_the_transaction(relay_to) -> None:
    async with ScriptedSmarthost(rcpt={"bob@x.test": refuse(550, "5.1.1 no such user")}) as scripted:
        transaction = begin(relay_to(scripted))
        first = await transaction.rcpt([ALICE])
        second = await transaction.rcpt([BOB, CAROL])
        await transaction.send_body(chunks(WIRE))
        await transaction.finish()

        assert [str(reply) for reply in first + second] == [
            "250 2.1.5 recipient ok",
            "550 5.1.1 no such user",
            "250 2.1.5 recipient ok",
        ]
        message = await scripted.wait_for_message()
        assert message.recipients == ["alice@x.test", "carol@x.test"]
        assert message.refused == ["bob@x.test"]


@pytest.mark.parametrize("code", [251, 252, 299])
async def test_any_2yz_to_rcpt_is_positive(relay_to, code: int) -> None:
    async with ScriptedSmarthost(rcpt=reply(code, "2.1.5 will do")) as scripted:
        await deliver(relay_to(scripted))

        assert scripted.messages[0].recipients == ["alice@x.test"]


@pytest.mark.parametrize("capabilities", [("PIPELINING",), ()])
async def test_refused_mail_is_the_reply_to_every_recipient(relay_to, capabilities) -> None:
    async with ScriptedSmarthost(capabilities=capabilities, mail=refuse(552, "5.3.4 too big")) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        first = await transaction.rcpt([ALICE, BOB])
        heard = scripted.count("RCPT")
        later = await transaction.rcpt([CAROL]) + await transaction.restart([ALICE])
        await transaction.abort()

        assert {str(reply) for reply in first + later} == {"552 5.3.4 too big"}
        assert [len(first), len(later)] == [2, 2]
        assert scripted.count("RCPT") == heard == (2 if capabilities else 0)
        with pytest.raises(SmarthostUnavailable):
            await transaction.send_body(chunks(WIRE))
        scripted.mail = None
        await deliver(smarthost)
        assert len(scripted.connections) == 1


async def test_a_thousand_recipients(relay_to) -> None:
    """In flights that neither side has to hold all of, however long the replies are."""
    names = [f"user{n}@x.test" for n in range(1000)]
    refused = {name: refuse(550, f"5.1.1 {name} {'x' * 1900}") for name in names[::7]}
    async with ScriptedSmarthost(rcpt=refused, receive_buffer=4096) as scripted:
        transaction = begin(relay_to(scripted))
        replies = await transaction.rcpt([ForwardPath(parse_mailbox(name)) for name in names])
        await transaction.send_body(chunks(WIRE))
        await transaction.finish()

        assert [name for name, reply in zip(names, replies, strict=True) if not reply.is_positive] == names[::7]
        assert all(name in reply.text for name, reply in zip(names[::7], replies[::7], strict=True))
        message = await scripted.wait_for_message()
        assert message.recipients == [name for name in names if name not in refused]
        assert max(map(len, scripted.connections[0].flights)) <= 100


@pytest.mark.parametrize("capabilities", [("PIPELINING",), ()])
async def test_restart_begins_again_with_those_who_remain(relay_to, capabilities) -> None:
    async with ScriptedSmarthost(capabilities=capabilities) as scripted:
        transaction = begin(relay_to(scripted), size=5)
        await transaction.rcpt([ALICE, BOB])
        replies = await transaction.restart([BOB])
        await transaction.send_body(chunks(WIRE))
        await transaction.finish()

        assert [reply.code for reply in replies] == [250]
        assert [each.recipients for each in scripted.transactions] == [["alice@x.test", "bob@x.test"], ["bob@x.test"]]
        assert [message.recipients for message in scripted.messages] == [["bob@x.test"]]
        assert len(scripted.connections) == 1


async def test_an_empty_body(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        await deliver(relay_to(scripted), wire=b"")

        assert scripted.messages[0].wire == b""


@pytest.mark.parametrize("wire", [b"no line end", b"\n", b"a\r", b"a\r\n."])
async def test_a_body_that_would_swallow_the_final_dot_is_not_sent(relay_to, wire: bytes) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        with pytest.raises(ValueError, match="CRLF"):
            await transaction.send_body(chunks(wire))

        await scripted.wait_until_closed()
        assert not scripted.messages
        assert smarthost._pool.idle == 0


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_a_body_larger_than_every_buffer(relay_to, kind) -> None:
    """It waits for a smarthost that reads slowly; afterwards nothing refers to it any more."""
    wire = bytearray(b"0123456789abcdef" * 600_000 + b"\r\n")
    events = [asyncio.Event() for _ in range(4)]
    pauses = {n * 1_000_000: hold(event) for n, event in enumerate(events)}
    async with ScriptedSmarthost(body=pauses, receive_buffer=65536) as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])
        sending = asyncio.create_task(transaction.send_body(chunks(kind(wire))))
        connection = transaction._connection
        assert connection is not None
        for event in events:
            await eventually(lambda: connection.is_paused)
            assert not sending.done()
            assert 0 < connection._unsent() <= UPLOAD_SLICE_OCTETS
            event.set()
        assert (await sending).code == 354
        assert connection._unsent() == 0
        wire += b"it can be resized"
        await transaction.finish()

        assert scripted.messages[0].wire == bytes(wire).removesuffix(b"it can be resized")


def test_any_body_arrives_octet_for_octet(loop_factory) -> None:
    lines = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"a", b"\xff\x00.", b"x" * 2000, b"MAIL FROM:<>"]))

    async def start() -> tuple[ScriptedSmarthost, Smarthost]:
        scripted = ScriptedSmarthost()
        await scripted.start()
        return scripted, Smarthost(scripted.settings(), hostname="guard.test")

    async def check_one(message: bytes) -> None:
        scripted.messages.clear()
        await deliver(smarthost, wire=stuff(message))
        assert scripted.messages[0].message == message

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        scripted, smarthost = runner.run(start())

        @settings(deadline=None, max_examples=200)
        @given(lines=lines, repeat=st.sampled_from([1, 1, 1, 300]))
        def check(lines: list[bytes], repeat: int) -> None:
            runner.run(check_one(b"".join(line + b"\r\n" for line in lines) * repeat))

        check()
        runner.run(smarthost.close())
        runner.run(scripted.stop())


async def test_calls_out_of_order_are_refused(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        for call in ("send_body", "finish", "restart"):
            with pytest.raises(SmarthostUnavailable):
                await _call(begin(smarthost), call)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await transaction.send_body(chunks(WIRE))
        await transaction.finish()
        for call in ("rcpt", "send_body", "finish", "restart"):
            with pytest.raises(SmarthostUnavailable, match="not open"):
                await _call(transaction, call)

        assert len(scripted.messages) == 1


async def _call(transaction, name: str) -> object:
    arguments: dict[str, tuple[object, ...]] = {"send_body": (chunks(WIRE),), "rcpt": ([ALICE],), "restart": ([ALICE],)}
    return await getattr(transaction, name)(*arguments.get(name, ()))


async def test_a_recipient_is_mailed_as_given_and_not_as_looked_up(relay_to) -> None:
    recipient = Mailbox("Alice@X.test", lookup_key="alice@x.test", domain="x.test")
    async with ScriptedSmarthost() as scripted:
        await deliver(relay_to(scripted), [ForwardPath(recipient)])

        assert scripted.messages[0].recipients == ["Alice@X.test"]
