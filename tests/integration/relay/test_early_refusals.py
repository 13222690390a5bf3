"""A smarthost that refuses a message before it has all of it: heard as its refusal, and the dot is never sent."""

import os
from collections.abc import Callable

import pytest

from smtpguard.domain.reply import Reply
from smtpguard.relay.smarthost import SmarthostTransaction
from tests.integration.relay.deliveries import ALICE, WIRE, begin, chunks, deliver
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import Action, ScriptedSmarthost, drop, raw, sequence, stall

LINE = b"x" * 998 + b"\r\n"
REFUSALS = {
    "552 5.3.4 too big": b"552 5.3.4 too big\r\n",
    "452 4.3.1 disk full": b"452 4.3.1 disk full\r\n",
    "554 5.6.0 no such thing here": b"554-5.6.0 no such\r\n554 5.6.0 thing here\r\n",
    "552 5.3.4 too big, and": b"552 5.3.4 too big, and\r\n421 4.3.2 closing\r\n",
}
AFTERWARDS: dict[str, Callable[[], list[Action]]] = {
    "goes on": list,
    "closes": lambda: [drop()],
    "stalls": lambda: [stall()],
}


async def send(transaction: SmarthostTransaction, wire: bytes) -> Reply:
    """Send the body, and the dot as soon as the smarthost was heard, unless it was refused before."""
    connection = transaction._connection
    assert connection is not None
    reply = await transaction.send_body(chunks(wire))
    if reply.code == 354:
        await eventually(lambda: not connection.is_clean)
        reply = await transaction.finish()
    return reply


@pytest.mark.parametrize("expected", REFUSALS)
@pytest.mark.parametrize("afterwards", AFTERWARDS)
@pytest.mark.parametrize("offset", [0, 10, 500_000])
async def test_a_refusal_in_the_middle_of_the_body(relay_to, expected: str, afterwards: str, offset: int) -> None:
    script = sequence(raw(REFUSALS[expected]), *AFTERWARDS[afterwards]())
    async with ScriptedSmarthost(body={offset: script}, receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        reply = await send(transaction, LINE * (1 if offset < 1000 else 20_000))

        assert str(reply) == expected
        await transaction.abort()
        assert not scripted.messages
        assert smarthost._pool.idle == 0
        await eventually(lambda: smarthost._pool.borrowed == 0)
        scripted.body = {}
        await deliver(smarthost)
        assert len(scripted.connections) == 2


async def test_a_refusal_that_lies_in_the_kernel_when_the_dot_would_go_out(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])
        await transaction.send_body(chunks(WIRE))
        os.write(scripted.connections[0].writer.get_extra_info("socket").fileno(), b"552 5.3.4 too big\r\n")

        assert str(await transaction.finish()) == "552 5.3.4 too big"
        await scripted.wait_until_closed()
        assert not scripted.messages


async def test_a_refusal_right_behind_the_go_ahead(relay_to) -> None:
    async with ScriptedSmarthost(data=raw(b"354 go ahead\r\n452 4.3.1 disk full\r\n")) as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])

        assert str(await transaction.send_body(chunks(WIRE))) == "452 4.3.1 disk full"
        await scripted.wait_until_closed()


async def test_the_refusal_is_read_before_more_is_sent_to_a_socket_that_would_refuse_it(relay_to) -> None:
    """What lies in the kernel would be lost with the first write that fails."""
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])

        async def body():
            yield LINE
            await eventually(lambda: bool(scripted.count("DATA")))
            writer = scripted.connections[0].writer
            os.write(writer.get_extra_info("socket").fileno(), b"552 5.3.4 too big\r\n")
            scripted.connections[0].reset()
            yield LINE * 1000

        assert str(await transaction.send_body(body())) == "552 5.3.4 too big"
