"""A transaction that waits for its application keeps nobody from the smarthost, and survives a smarthost that left."""

import asyncio
import os
import socket

import pytest

from smtpguard.errors import SmarthostUnavailable
from smtpguard.relay.smarthost import Smarthost, SmarthostTransaction
from tests.integration.relay.deliveries import ALICE, BOB, CAROL, NO_PIPELINING, WIRE, begin, chunks, deliver
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import (
    CAPABILITIES,
    Connection,
    ScriptedSmarthost,
    drop,
    hold,
    in_turn,
    refuse,
    usual,
)

pipelining = pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING], ids=["pipelined", "step-by-step"])


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.transaction.HOLD_SECONDS", 0.02)


async def lent(smarthost: Smarthost) -> None:
    """Wait until no transaction holds a connection."""
    await eventually(lambda: smarthost._pool.borrowed == 0)


def hang_up(connection: Connection, farewell: bytes = b"") -> None:
    """End the connection at once, so that only the kernel knows of it."""
    descriptor = connection.writer.get_extra_info("socket").fileno()
    os.write(descriptor, farewell)
    with socket.socket(fileno=os.dup(descriptor)) as own:
        own.shutdown(socket.SHUT_WR)


async def end(transaction: SmarthostTransaction) -> str:
    assert (await transaction.send_body(chunks(WIRE))).code == 354
    return str(await transaction.finish())


@pipelining
async def test_others_pass_an_idle_transaction(relay_to, impatient, capabilities) -> None:
    async with ScriptedSmarthost(capabilities=capabilities) as scripted:
        smarthost = relay_to(scripted, max_connections=1)
        waiting = begin(smarthost, size=17)
        await waiting.rcpt([ALICE, BOB])
        await deliver(smarthost, [CAROL])
        assert (await end(waiting)).startswith("250")

        assert [message.recipients for message in scripted.messages] == [
            ["carol@x.test"],
            ["alice@x.test", "bob@x.test"],
        ]
        assert scripted.messages[1].parameters == ("SIZE=17",)
        assert len(scripted.connections) == 1


async def test_a_recipient_joins_a_transaction_that_was_lent(relay_to, impatient) -> None:
    """Who was refused is not asked about again; who was accepted is, once each time."""
    async with ScriptedSmarthost(rcpt={"bob@x.test": refuse(550, "5.1.1 no")}) as scripted:
        smarthost = relay_to(scripted, max_connections=1)
        transaction = begin(smarthost)
        replies = [str(reply) for reply in await transaction.rcpt([ALICE, BOB])]
        await lent(smarthost)
        replies += [str(reply) for reply in await transaction.rcpt([CAROL])]
        await lent(smarthost)
        await end(transaction)

        assert replies == ["250 2.1.5 recipient ok", "550 5.1.1 no", "250 2.1.5 recipient ok"]
        assert [each.offered for each in scripted.transactions] == [
            ["alice@x.test", "bob@x.test"],
            ["alice@x.test", "carol@x.test"],
            ["alice@x.test", "carol@x.test"],
        ]
        assert scripted.messages[0].recipients == ["alice@x.test", "carol@x.test"]


async def test_a_transaction_without_accepted_recipients_begins_anew(relay_to, impatient) -> None:
    async with ScriptedSmarthost(rcpt=in_turn(refuse(550, "5.1.1 no"))) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await lent(smarthost)

        assert [reply.code for reply in await transaction.rcpt([BOB])] == [250]
        await end(transaction)
        assert scripted.messages[0].recipients == ["bob@x.test"]


async def test_restart_of_a_transaction_that_was_lent(relay_to, impatient) -> None:
    """Those who are left out are not even named again."""
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, max_connections=1)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE, BOB])
        await lent(smarthost)

        assert [reply.code for reply in await transaction.restart([BOB])] == [250]
        await lent(smarthost)
        await end(transaction)
        assert [each.offered for each in scripted.transactions[1:]] == [["bob@x.test"], ["bob@x.test"]]


@pytest.mark.parametrize("step", ["mail", "rcpt"])
@pytest.mark.parametrize("code", [450, 550])
async def test_what_was_accepted_is_refused_when_it_is_repeated(relay_to, impatient, step: str, code: int) -> None:
    """The application has heard 250 to it: it tries again later."""
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await lent(smarthost)
        setattr(scripted, step, in_turn(refuse(code, "4.7.1 not now")))
        with pytest.raises(SmarthostUnavailable, match=f"accepted before: {code}"):
            await transaction.send_body(chunks(WIRE))

        assert scripted.count("DATA") == 0
        await deliver(smarthost, [BOB])
        assert [message.recipients for message in scripted.messages] == [["bob@x.test"]]


async def test_the_next_smarthost_lacks_what_the_first_had(relay_to, impatient) -> None:
    """Behind one name there may be several."""
    async with ScriptedSmarthost(capabilities=("SMTPUTF8",)) as scripted:
        smarthost = relay_to(scripted, idle_timeout=0.01)
        transaction = begin(smarthost, smtputf8=True)
        await transaction.rcpt([ALICE])
        scripted.capabilities = ()
        await scripted.wait_until_closed()
        with pytest.raises(SmarthostUnavailable, match=r"accepted before: 550 5\.6\.7"):
            await transaction.send_body(chunks(WIRE))

        assert scripted.count("MAIL") == 1


async def test_a_lent_transaction_is_aborted(relay_to, impatient) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await lent(smarthost)
        await transaction.abort()
        await transaction.abort()
        with pytest.raises(SmarthostUnavailable, match="not open"):
            await transaction.send_body(chunks(WIRE))

        assert smarthost._pool.idle == 1


async def test_who_is_in_the_middle_of_a_command_is_not_lent(relay_to, monkeypatch) -> None:
    """The time counts from the end of a call, however long it takes."""
    monkeypatch.setattr("smtpguard.relay.transaction.HOLD_SECONDS", 0.0)
    event = asyncio.Event()
    async with ScriptedSmarthost(rcpt=hold(event)) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        asking = asyncio.create_task(transaction.rcpt([ALICE]))
        await scripted.wait_for_command("RCPT")
        await asyncio.wait({asking}, timeout=0.02)
        assert smarthost._pool.borrowed == 1
        event.set()
        await asking

        await lent(smarthost)
        await transaction.abort()


@pytest.mark.parametrize("step", ["data", "dot"])
async def test_nothing_past_data_is_lent(relay_to, monkeypatch, step: str) -> None:
    monkeypatch.setattr("smtpguard.relay.transaction.HOLD_SECONDS", 0.0)
    event = asyncio.Event()
    async with ScriptedSmarthost(**{step: hold(event)}) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        ending = asyncio.create_task(end(transaction))
        await scripted.wait_for(lambda: scripted.messages if step == "dot" else scripted.count("DATA"))
        await asyncio.wait({ending}, timeout=0.02)
        assert smarthost._pool.borrowed == 1
        event.set()

        assert (await ending).startswith("250")


async def test_a_transaction_between_body_and_dot_is_not_lent(relay_to, impatient) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await transaction.send_body(chunks(WIRE))
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.05)
        assert smarthost._pool.borrowed == 1

        assert (await transaction.finish()).is_positive
        assert len(scripted.transactions) == 1


async def test_a_transaction_that_nobody_ends_holds_nothing(relay_to, impatient) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await begin(smarthost).rcpt([ALICE])

        await lent(smarthost)
        assert smarthost._pool.idle == 1


async def test_all_wait_slowly_and_all_get_through(relay_to, monkeypatch) -> None:
    """Ten slow applications over two connections."""
    monkeypatch.setattr("smtpguard.relay.transaction.HOLD_SECONDS", 0.001)
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, max_connections=2)

        async def send() -> str:
            transaction = begin(smarthost)
            for recipient in (ALICE, BOB, CAROL):
                await transaction.rcpt([recipient])
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.005)
            return await end(transaction)

        replies = await asyncio.gather(*(send() for _ in range(10)))

        assert all(reply.startswith("250") for reply in replies)
        assert {tuple(message.recipients) for message in scripted.messages} == (
            {("alice@x.test", "bob@x.test", "carol@x.test")}
        )
        assert len(scripted.messages) == 10
        assert len(scripted.connections) <= 2


@pytest.mark.parametrize("farewell", [b"", b"421 4.4.2 idle for too long\r\n"])
@pytest.mark.parametrize("step", ["rcpt", "restart", "send_body"])
async def test_the_smarthost_leaves_an_idle_transaction(relay_to, step: str, farewell: bytes) -> None:
    """A message that the application has ready is not refused for that."""
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE, BOB])
        hang_up(scripted.connections[0], farewell)
        if step == "rcpt":
            await transaction.rcpt([CAROL])
        if step == "restart":
            await transaction.restart([BOB])
        await end(transaction)

        expected = {"rcpt": ["alice", "bob", "carol"], "restart": ["bob"], "send_body": ["alice", "bob"]}[step]
        assert scripted.messages[0].recipients == [f"{name}@x.test" for name in expected]
        assert len(scripted.connections) == 2


async def test_a_smarthost_that_keeps_leaving_is_left_alone(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])
        hang_up(scripted.connections[0])
        await transaction.rcpt([BOB])
        hang_up(scripted.connections[1])
        with pytest.raises(SmarthostUnavailable, match="closed"):
            await end(transaction)

        assert len(scripted.connections) == 2
        assert not scripted.messages


@pytest.mark.parametrize("step", ["data", "dot"])
async def test_nothing_past_data_is_repeated(relay_to, impatient, step: str) -> None:
    async with ScriptedSmarthost(**{step: in_turn(usual(), drop())}) as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await lent(smarthost)
        with pytest.raises(Exception, match=r"closed|lost"):
            await end(transaction)

        assert len(scripted.connections) == 1
        assert scripted.count("DATA") == 2


async def test_a_lent_connection_went_stale_in_the_pool(relay_to, impatient) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await lent(smarthost)
        scripted.rset = in_turn(drop())
        await end(transaction)

        assert scripted.messages[0].recipients == ["alice@x.test"]
        assert len(scripted.connections) == 2
