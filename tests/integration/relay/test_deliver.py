"""A message that is whole in memory: body and final dot go out together, and what is concluded stays true."""

import asyncio
import os
from collections.abc import Callable

import pytest

from smtpguard.errors import SmarthostLost, SmarthostUnavailable
from smtpguard.relay.connection import UPLOAD_SLICE_OCTETS
from smtpguard.relay.smarthost import Smarthost, SmarthostTransaction
from tests.integration.relay.deliveries import ALICE, BOB, NO_PIPELINING, WIRE, Octets, begin, deliver
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import (
    CAPABILITIES,
    Action,
    ScriptedSmarthost,
    drop,
    hang,
    hold,
    in_turn,
    raw,
    refuse,
    reset,
    sequence,
    stall,
)

LINE = b"x" * 998 + b"\r\n"
BIG = LINE * 20_000  # more than the kernels at both ends take while nobody reads
IN_ONE_WRITE = 2 * len(BIG)
pipelining = pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING], ids=["pipelined", "step-by-step"])


@pytest.fixture
def one_write(monkeypatch) -> None:
    """Let the biggest body go out like a small one, so that most of it waits in the transport."""
    monkeypatch.setattr("smtpguard.relay.transaction.UPLOAD_SLICE_OCTETS", IN_ONE_WRITE)


def nothing() -> None:
    """Let the dot go out."""


async def offered(smarthost: Smarthost) -> SmarthostTransaction:
    """Begin a transaction whose recipient is accepted."""
    transaction = begin(smarthost)
    (reply,) = await transaction.rcpt([ALICE])
    assert reply.is_positive
    return transaction


async def send(smarthost: Smarthost, wire: Octets = WIRE, before_dot: Callable[[], None] = nothing) -> str:
    transaction = await offered(smarthost)
    return str(await transaction.deliver(wire, before_dot=before_dot))


async def assert_free(smarthost: Smarthost) -> None:
    """No connection is kept, and no place taken."""
    assert smarthost._pool.idle == 0
    await eventually(lambda: smarthost._pool.borrowed == 0)


@pipelining
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("wire", [WIRE, b"", LINE * 500], ids=["small", "empty", "big"])
async def test_a_message_is_delivered_whole(relay_to, capabilities, kind, wire: bytes) -> None:
    async with ScriptedSmarthost(capabilities=capabilities) as scripted:
        smarthost = relay_to(scripted)

        assert await send(smarthost, kind(wire)) == "250 2.0.0 queued as 1"
        assert await send(smarthost, kind(wire)) == "250 2.0.0 queued as 2"
        assert [message.wire for message in scripted.messages] == [wire, wire]
        assert len(scripted.connections) == 1


@pytest.mark.parametrize("octets", [UPLOAD_SLICE_OCTETS + n for n in (-2, -1, 0, 1, 2)] + [2 * UPLOAD_SLICE_OCTETS])
async def test_bodies_around_the_size_of_one_write(relay_to, octets: int) -> None:
    wire = b"x" * (octets - 2) + b"\r\n"
    async with ScriptedSmarthost() as scripted:
        await send(relay_to(scripted), wire)

        assert scripted.messages[0].wire == wire


async def test_a_message_is_delivered_over_tls(relay_to, certificates) -> None:
    async with ScriptedSmarthost(tls=certificates.server_context(), receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted, tls="starttls", ca_file=certificates.ca_file)
        for wire in (WIRE, BIG):
            assert (await send(smarthost, wire)).startswith("250")

        assert [message.wire for message in scripted.messages] == [WIRE, BIG]
        assert len(scripted.connections) == 1


@pytest.mark.parametrize("wire", [WIRE, BIG], ids=["small", "big"])
async def test_the_last_word_before_the_dot(relay_to, wire: bytes) -> None:
    """It is asked for once, when the smarthost waits for the body, and nothing can have been delivered."""
    asked = []
    async with ScriptedSmarthost() as scripted:
        await send(relay_to(scripted), wire, lambda: asked.append((scripted.count("DATA"), len(scripted.messages))))

        assert asked == [(1, 0)]
        assert scripted.messages[0].wire == wire


@pytest.mark.parametrize("wire", [WIRE, BIG], ids=["small", "big"])
async def test_a_last_word_that_is_no(relay_to, wire: bytes) -> None:
    """The error goes up as it is, and the connection is closed: the smarthost waits for a body."""

    def refuse_() -> None:
        raise LookupError("the application is gone")

    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = await offered(smarthost)
        with pytest.raises(LookupError, match="the application is gone"):
            await transaction.deliver(wire, before_dot=refuse_)

        await scripted.wait_until_closed()
        assert not scripted.messages
        await assert_free(smarthost)
        with pytest.raises(SmarthostUnavailable, match="not open"):
            await transaction.deliver(wire, before_dot=nothing)


@pytest.mark.parametrize("code", [451, 554])
async def test_data_is_refused(relay_to, code: int) -> None:
    asked = []
    async with ScriptedSmarthost(data=in_turn(refuse(code, "4.3.0 not now"))) as scripted:
        smarthost = relay_to(scripted)

        assert (await send(smarthost, WIRE, lambda: asked.append(1))).startswith(str(code))
        assert asked == []
        await deliver(smarthost)
        assert len(scripted.connections) == 1


@pytest.mark.parametrize("reply", ["451 4.3.0 not now", "550 5.7.1 spam", "421 4.3.2 closing"])
async def test_the_message_is_refused(relay_to, reply: str) -> None:
    code, _, text = reply.partition(" ")
    async with ScriptedSmarthost(dot=in_turn(refuse(int(code), text))) as scripted:
        smarthost = relay_to(scripted)

        assert await send(smarthost) == reply
        await deliver(smarthost, [BOB])
        assert len(scripted.connections) == (2 if code == "421" else 1)


BREAKAGES: dict[str, Action] = {
    "hang": hang(),
    "drop": drop(),
    "reset": reset(),
    "half a reply": sequence(raw(b"250-ok\r\n250 o"), drop()),
    "garbage": raw(b"\x00\xff\r\n\r\n"),
    "3yz": raw(b"334 go on\r\n"),
}


@pytest.mark.parametrize("fault", BREAKAGES)
async def test_a_breakage_at_data_is_unavailable(relay_to, fault: str) -> None:
    asked = []
    async with ScriptedSmarthost(data=BREAKAGES[fault]) as scripted:
        smarthost = relay_to(scripted, data_timeout=0.05 if fault == "hang" else 20)
        with pytest.raises(SmarthostUnavailable):
            await send(smarthost, WIRE, lambda: asked.append(1))

        assert asked == []
        await scripted.wait_until_closed()
        await assert_free(smarthost)


@pytest.mark.parametrize("fault", BREAKAGES)
async def test_a_breakage_after_the_dot_is_lost(relay_to, fault: str) -> None:
    async with ScriptedSmarthost(dot=BREAKAGES[fault]) as scripted:
        smarthost = relay_to(scripted, reply_timeout=0.05 if fault == "hang" else 20)
        with pytest.raises(SmarthostLost, match="after the final dot"):
            await send(smarthost)

        await scripted.wait_until_closed()
        assert len(scripted.messages) == 1
        await assert_free(smarthost)


@pytest.mark.parametrize("wire", [b"no line end", b"\n", b"a\r", b"a\r\n."])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_a_body_that_would_swallow_the_final_dot_is_not_sent(relay_to, wire: bytes, kind) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = await offered(smarthost)
        with pytest.raises(ValueError, match="CRLF"):
            await transaction.deliver(kind(wire), before_dot=nothing)

        await scripted.wait_until_closed()
        assert scripted.count("DATA") == 0
        await assert_free(smarthost)


async def test_calls_out_of_order_are_refused(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        with pytest.raises(SmarthostUnavailable, match="not open"):
            await transaction.deliver(WIRE, before_dot=nothing)
        assert not scripted.connections


@pytest.mark.parametrize(
    "early", [b"250 2.0.0 queued\r\n", b"354 go ahead\r\n", b"421 4.3.2 closing\r\n", b"250-2.0.0 q"]
)
@pytest.mark.parametrize("big", [False, True])
async def test_a_word_behind_the_go_ahead_is_not_the_reply_to_the_dot(relay_to, early: bytes, big: bool) -> None:
    async with ScriptedSmarthost(data=raw(b"354 go ahead\r\n" + early)) as scripted:
        smarthost = relay_to(scripted)
        with pytest.raises(SmarthostUnavailable, match="unasked"):
            await send(smarthost, BIG if big else WIRE)

        await scripted.wait_until_closed()
        assert not scripted.messages
        await assert_free(smarthost)


@pytest.mark.parametrize("big", [False, True])
async def test_a_refusal_behind_the_go_ahead(relay_to, big: bool) -> None:
    async with ScriptedSmarthost(data=raw(b"354 go ahead\r\n452 4.3.1 disk full\r\n")) as scripted:
        assert await send(relay_to(scripted), BIG if big else WIRE) == "452 4.3.1 disk full"
        await scripted.wait_until_closed()
        assert not scripted.messages


@pytest.mark.parametrize("offset", [0, 500_000])
async def test_a_refusal_in_the_middle_of_a_big_body(relay_to, offset: int) -> None:
    async with ScriptedSmarthost(body={offset: raw(b"552 5.3.4 too big\r\n")}, receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted)

        assert await send(smarthost, BIG) == "552 5.3.4 too big"
        assert not scripted.messages
        await assert_free(smarthost)


# What of the last write waits in the transport has not left this process: the dot is the last of it.


async def test_a_smarthost_that_stops_reading_cannot_have_the_message(relay_to, one_write) -> None:
    async with ScriptedSmarthost(body={0: stall()}, receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted, block_timeout=0.05)
        with pytest.raises(SmarthostUnavailable, match=r"took no octet for 0\.05 s"):
            await send(smarthost, BIG)

        assert not scripted.messages
        await assert_free(smarthost)


@pytest.mark.parametrize("end", [drop, reset])
async def test_a_smarthost_that_leaves_before_the_dot_cannot_have_the_message(relay_to, one_write, end) -> None:
    async with ScriptedSmarthost(body={500_000: end()}, receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted)
        with pytest.raises(SmarthostUnavailable):
            await send(smarthost, BIG)

        assert not scripted.messages
        await assert_free(smarthost)


@pytest.mark.parametrize("early", [b"250 2.0.0 queued\r\n", b"421 4.3.2 closing\r\n", b"250-2.0.0 q"])
async def test_a_word_before_the_dot_has_left_is_not_the_reply_to_it(relay_to, one_write, early: bytes) -> None:
    async with ScriptedSmarthost(body={500_000: raw(early)}, receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted)
        with pytest.raises(SmarthostUnavailable, match="unasked"):
            await send(smarthost, BIG)

        assert not scripted.messages
        await assert_free(smarthost)


async def test_a_refusal_before_the_dot_has_left(relay_to, one_write) -> None:
    async with ScriptedSmarthost(body={500_000: raw(b"552 5.3.4 too big\r\n")}, receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted)

        assert await send(smarthost, BIG) == "552 5.3.4 too big"
        assert not scripted.messages
        await assert_free(smarthost)


async def test_a_smarthost_that_reads_slowly_gets_all_of_it(relay_to, one_write) -> None:
    """Its reply is due once the kernel has taken the dot; the connection then is as good as new."""
    event = asyncio.Event()
    async with ScriptedSmarthost(body={500_000: hold(event)}, receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted)
        transaction = await offered(smarthost)
        connection = transaction._connection
        assert connection is not None
        sending = asyncio.create_task(transaction.deliver(BIG, before_dot=nothing))
        await eventually(lambda: connection._dot_waits)
        event.set()

        assert (await sending).is_positive
        assert scripted.messages[0].wire == BIG
        scripted.body = {}
        await deliver(smarthost)
        assert len(scripted.connections) == 1


async def test_a_dot_that_the_socket_refuses_was_not_sent(relay_to) -> None:
    """The write fails at once: nothing of it can be on its way."""
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = await offered(smarthost)
        connection = transaction._connection
        assert connection is not None
        assert connection._transport is not None
        own = connection._transport.get_extra_info("socket")

        def hang_up() -> None:
            os.dup2(os.open(os.devnull, os.O_RDONLY), own.fileno())  # a descriptor that takes no write

        with pytest.raises(SmarthostUnavailable):
            await transaction.deliver(WIRE, before_dot=hang_up)
        assert not scripted.messages
