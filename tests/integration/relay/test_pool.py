"""The pool: which connection is used again, which is not, and that no place is ever lost."""

import asyncio
from collections.abc import Callable

import pytest

from smtpguard.errors import SmarthostUnavailable
from smtpguard.relay.connection import UPLOAD_SLICE_OCTETS
from tests.integration.relay.deliveries import ALICE, BOB, NO_PIPELINING, WIRE, begin, chunks, deliver
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
    usual,
)

pipelining = pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING], ids=["pipelined", "step-by-step"])


async def test_a_connection_is_used_again(relay_to) -> None:
    """A smarthost that has taken a message keeps nothing of it (RFC 5321 4.1.1.4): no RSET is needed."""
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        await deliver(smarthost, [BOB])

        assert len(scripted.connections) == 1
        assert scripted.connections[0].flights[3] == ["MAIL FROM:<app@corp.test>", "RCPT TO:<bob@x.test>"]
        assert [message.recipients for message in scripted.messages] == [["alice@x.test"], ["bob@x.test"]]


async def test_the_connection_used_last_is_used_next(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transactions = [begin(smarthost) for _ in range(3)]
        for transaction in transactions:
            await transaction.rcpt([ALICE])
        for transaction in (transactions[2], transactions[0], transactions[1]):
            await transaction.abort()
        await deliver(smarthost)

        assert smarthost._pool.idle == 3
        assert scripted.messages[0].connection is scripted.connections[1]


async def give_up(smarthost) -> None:
    """Leave a connection behind on which the next transaction begins with RSET."""
    transaction = begin(smarthost)
    await transaction.rcpt([ALICE])
    await transaction.abort()


async def test_a_connection_whose_message_was_refused_is_reset(relay_to) -> None:
    async with ScriptedSmarthost(dot=in_turn(refuse(554, "5.7.1 spam"))) as scripted:
        smarthost = relay_to(scripted)
        assert not (await deliver(smarthost)).is_positive
        await deliver(smarthost, [BOB])

        assert scripted.connections[0].flights[3] == ["RSET", "MAIL FROM:<app@corp.test>", "RCPT TO:<bob@x.test>"]


DEATHS: dict[str, tuple[str, list[Action]]] = {
    "drop at RSET": ("rset", [drop()]),
    "reset at RSET": ("rset", [reset()]),
    "421 at RSET": ("rset", [refuse(421, "4.4.2 idle for too long")]),
    "RSET refused": ("rset", [refuse(451, "4.7.0 idle for too long")]),
    "drop at MAIL": ("mail", [usual(), drop()]),
    "421 at MAIL": ("mail", [usual(), refuse(421, "4.3.2 closing")]),
    "drop at the first RCPT": ("rcpt", [usual(), drop()]),
    "421 at the first RCPT": ("rcpt", [usual(), refuse(421, "4.3.2 closing")]),
}


@pipelining
@pytest.mark.parametrize("death", DEATHS)
async def test_a_stale_connection_is_replaced_once(relay_to, capabilities, death: str) -> None:
    step, actions = DEATHS[death]
    async with ScriptedSmarthost(capabilities=capabilities, **{step: in_turn(*actions)}) as scripted:
        smarthost = relay_to(scripted)
        await give_up(smarthost)
        await deliver(smarthost, [BOB])

        assert len(scripted.connections) == 2
        assert scripted.messages[0].recipients == ["bob@x.test"]
        assert "RSET" not in scripted.connections[1].commands
        assert smarthost._pool.borrowed == 0


async def test_a_stale_connection_is_not_replaced_twice(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        scripted.mail = drop()
        with pytest.raises(SmarthostUnavailable, match="closed the connection"):
            await begin(smarthost).rcpt([ALICE])

        assert len(scripted.connections) == 2


async def test_a_stale_connection_cannot_be_replaced(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        scripted.mail, scripted.greeting = drop(), refuse(554, "5.3.2 not now")
        with pytest.raises(SmarthostUnavailable, match="not now"):
            await begin(smarthost).rcpt([ALICE])

        await eventually(lambda: smarthost._pool.borrowed == 0)


@pipelining
async def test_no_other_connection_is_tried_once_a_recipient_was_answered(relay_to, capabilities) -> None:
    async with ScriptedSmarthost(capabilities=capabilities) as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        scripted.rcpt = {"bob@x.test": drop()}
        with pytest.raises(SmarthostUnavailable):
            await begin(smarthost).rcpt([ALICE, BOB])

        assert len(scripted.connections) == 1


async def test_no_other_connection_is_tried_for_later_recipients(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        scripted.rcpt = drop()
        with pytest.raises(SmarthostUnavailable):
            await transaction.rcpt([BOB])

        assert len(scripted.connections) == 1


@pytest.mark.parametrize("reused", [False, True])
async def test_restart_tries_no_other_connection(relay_to, reused: bool) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        if reused:
            await deliver(smarthost)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE, BOB])
        scripted.rset = drop()
        with pytest.raises(SmarthostUnavailable):
            await transaction.restart([BOB])

        assert len(scripted.connections) == 1


@pytest.mark.parametrize("step", ["rset", "mail"])
async def test_silence_on_a_reused_connection_is_not_waited_for_twice(relay_to, step: str) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, command_timeout=0.2)
        await give_up(smarthost)
        setattr(scripted, step, hang())
        with pytest.raises(SmarthostUnavailable, match="no reply within"):
            await begin(smarthost).rcpt([ALICE])

        assert len(scripted.connections) == 1


@pytest.mark.parametrize("octets", [b"421 4.4.2 idle for too long\r\n", b"250 hello?\r\n", b"x", b"\n"])
async def test_a_connection_that_speaks_while_idle_is_not_used_again(relay_to, octets: bytes) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        scripted.connections[0].say(octets)
        await scripted.wait_until_closed()
        await deliver(smarthost, [BOB])

        assert len(scripted.connections) == 2
        assert scripted.connections[0].commands[-1] == "DATA"
        assert "RSET" not in scripted.connections[1].commands


async def test_the_smarthost_restarts(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        await scripted.stop()
        await scripted.start()
        await deliver(smarthost)

        assert len(scripted.connections) == 2


async def test_an_idle_connection_is_closed_with_quit(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, idle_timeout=0.05)
        await deliver(smarthost)
        await scripted.wait_until_closed()

        assert scripted.connections[0].commands[-1] == "QUIT"
        assert smarthost._pool.idle == 0


async def test_an_idle_connection_in_use_again_is_not_closed(relay_to) -> None:
    event = asyncio.Event()
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, idle_timeout=0.2)
        await deliver(smarthost)
        scripted.dot = hold(event)
        delivery = asyncio.create_task(deliver(smarthost))
        await scripted.wait_for_message(2)
        await asyncio.wait({delivery}, timeout=0.3)
        event.set()

        assert (await delivery).is_positive
        assert len(scripted.connections) == 1


async def test_a_worn_connection_is_closed_with_quit(relay_to, monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.pool.MAX_TRANSACTIONS", 2)
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, max_connections=1)
        for _ in range(5):
            await deliver(smarthost)

        assert [len(each.transactions) for each in scripted.connections] == [2, 2, 1]
        assert [each.commands[-1] for each in scripted.connections[:2]] == ["QUIT", "QUIT"]


async def test_an_old_connection_is_closed_with_quit(relay_to, monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.pool.MAX_AGE_SECONDS", 0.0)
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        await deliver(smarthost)

        assert len(scripted.connections) == 2
        assert scripted.connections[0].commands[-1] == "QUIT"


async def test_an_idle_connection_gets_no_older_than_it_may(relay_to, monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.pool.MAX_AGE_SECONDS", 0.1)
    async with ScriptedSmarthost() as scripted:
        await deliver(relay_to(scripted, idle_timeout=1000))
        await scripted.wait_until_closed()

        assert scripted.connections[0].commands[-1] == "QUIT"


async def test_quit_is_not_waited_for_long(relay_to, monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.connection.QUIT_SECONDS", 0.05)
    async with ScriptedSmarthost(quit=hang()) as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        await smarthost.close()
        await scripted.wait_until_closed()

        assert scripted.connections[0].commands[-1] == "QUIT"


async def test_the_answer_to_quit_ends_the_connection(relay_to, monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.relay.connection.QUIT_SECONDS", 1000)
    async with ScriptedSmarthost(quit=sequence(usual(), hang())) as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        await smarthost.close()
        await scripted.wait_until_closed()


async def test_who_finds_all_connections_in_use_waits_for_one(relay_to) -> None:
    event = asyncio.Event()
    async with ScriptedSmarthost(dot=in_turn(hold(event))) as scripted:
        smarthost = relay_to(scripted, max_connections=1)
        first = asyncio.create_task(deliver(smarthost))
        await scripted.wait_for_message()
        second = asyncio.create_task(deliver(smarthost, [BOB]))
        await asyncio.wait({second}, timeout=0.02)
        assert not second.done()
        event.set()
        await asyncio.gather(first, second)

        assert len(scripted.connections) == 1


async def test_who_waits_for_too_long_hears_that_all_are_in_use(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, max_connections=1, connect_timeout=0.2)
        holder = begin(smarthost)
        await holder.rcpt([ALICE])
        with pytest.raises(SmarthostUnavailable, match="all 1 connections were in use for"):
            await begin(smarthost).rcpt([BOB])

        assert smarthost._pool.borrowed == 1
        await holder.abort()
        await deliver(smarthost, [BOB])
        assert len(scripted.connections) == 1


async def test_who_gives_up_waiting_takes_no_place(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, max_connections=1)
        holder = begin(smarthost)
        await holder.rcpt([ALICE])
        waiting = [asyncio.create_task(begin(smarthost).rcpt([BOB])) for _ in range(3)]
        await asyncio.wait(waiting, timeout=0.01)
        await holder.abort()  # wakes the first, which is cancelled before it can run
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

        await eventually(lambda: smarthost._pool.borrowed == 0)
        await deliver(smarthost)


async def test_a_connection_that_takes_its_leave_still_has_its_place(relay_to, monkeypatch) -> None:
    """So that the smarthost never sees more connections than are allowed."""
    monkeypatch.setattr("smtpguard.relay.pool.MAX_TRANSACTIONS", 1)
    event = asyncio.Event()
    async with ScriptedSmarthost(quit=hold(event)) as scripted:
        smarthost = relay_to(scripted, max_connections=1)
        await deliver(smarthost)
        await scripted.wait_for_command("QUIT")
        second = asyncio.create_task(deliver(smarthost))
        await asyncio.wait({second}, timeout=0.02)

        assert len(scripted.connections) == smarthost._pool.borrowed == 1
        event.set()
        await second
        assert len(scripted.connections) == 2


async def test_a_closed_pool_lends_nothing(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        await smarthost.close()
        await scripted.wait_until_closed()
        with pytest.raises(SmarthostUnavailable, match="shutting down"):
            await begin(smarthost).rcpt([ALICE])

        assert scripted.connections[0].commands[-1] == "QUIT"
        assert len(scripted.connections) == 1


async def test_a_closed_pool_has_no_timer_left(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, idle_timeout=0.02)
        await deliver(smarthost)
        await smarthost.close()
        never = asyncio.get_running_loop().create_future()
        await asyncio.wait({never}, timeout=0.04)  # what would go off then fails this test (see relay_to)


async def test_a_closed_pool_expires_nothing(relay_to) -> None:
    """Not even a connection that had died while it lay idle."""
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, idle_timeout=0.2)
        await deliver(smarthost)
        [dead] = smarthost._pool._idle
        scripted.connections[0].drop()
        await eventually(dead.lost.done)
        await smarthost.close()

        assert dead.alarm._action is None


async def test_close_lets_a_transaction_end(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await smarthost.close()
        await transaction.send_body(chunks(WIRE))
        final = await transaction.finish()

        assert final.is_positive
        await scripted.wait_until_closed()
        assert smarthost._pool.idle == 0


async def test_who_waits_when_the_pool_closes_gets_nothing(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted, max_connections=1)
        holder = begin(smarthost)
        await holder.rcpt([ALICE])
        waiting = asyncio.create_task(begin(smarthost).rcpt([BOB]))
        await asyncio.wait({waiting}, timeout=0.01)
        await smarthost.close()
        await holder.abort()
        with pytest.raises(SmarthostUnavailable, match="shutting down"):
            await waiting

        await scripted.wait_until_closed()
        assert len(scripted.connections) == 1


async def test_abort_before_anything_was_sent(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.abort()
        await transaction.abort()
        with pytest.raises(SmarthostUnavailable):
            await transaction.rcpt([ALICE])

        assert not scripted.connections


@pipelining
async def test_abort_before_data_keeps_the_connection(relay_to, capabilities) -> None:
    """The next transaction begins with RSET, so that the recipients of this one are gone."""
    async with ScriptedSmarthost(capabilities=capabilities) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await transaction.abort()
        await transaction.abort()
        await deliver(smarthost, [BOB])

        assert len(scripted.connections) == 1
        assert scripted.messages[0].recipients == ["bob@x.test"]


@pytest.mark.parametrize("wire", [b"", WIRE])
async def test_abort_after_the_body_closes_the_connection(relay_to, wire: bytes) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await transaction.send_body(chunks(wire))
        await transaction.abort()
        await transaction.abort()
        await scripted.wait_until_closed()

        assert not scripted.messages
        assert smarthost._pool.idle == 0


async def test_abort_after_data_was_refused_keeps_the_connection(relay_to) -> None:
    async with ScriptedSmarthost(data=in_turn(refuse(451, "4.3.0 not now"))) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        assert (await transaction.send_body(chunks(WIRE))).code == 451
        await transaction.abort()
        await deliver(smarthost)

        assert len(scripted.connections) == 1


async def test_abort_after_the_end_does_nothing(relay_to) -> None:
    async with ScriptedSmarthost() as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        await transaction.send_body(chunks(WIRE))
        await transaction.finish()
        await transaction.abort()

        assert smarthost._pool.idle == 1
        assert len(scripted.messages) == 1


HALF_WAY: dict[str, tuple[dict[str, object], Callable[[ScriptedSmarthost], object]]] = {
    "connecting": ({"greeting": hang()}, lambda scripted: scripted.connections),
    "MAIL": ({"mail": hang()}, lambda scripted: scripted.count("MAIL")),
    "RCPT": ({"rcpt": hang()}, lambda scripted: scripted.count("RCPT")),
    "DATA": ({"data": hang()}, lambda scripted: scripted.count("DATA")),
    "body": ({"body": {0: stall()}}, lambda scripted: scripted.count("DATA")),
    "dot": ({"dot": hang()}, lambda scripted: scripted.messages),
}


@pytest.mark.parametrize("place", HALF_WAY)
async def test_abort_in_the_middle_of_another_call(relay_to, place: str) -> None:
    """The guard cancels the call before; even if it did not, the connection is not used again."""
    script, reached = HALF_WAY[place]
    async with ScriptedSmarthost(**script, receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted)
        transaction = begin(smarthost)

        async def send() -> None:
            await transaction.rcpt([ALICE])
            await transaction.send_body(chunks(b"x" * UPLOAD_SLICE_OCTETS * (80 if place == "body" else 1) + b"\r\n"))
            await transaction.finish()

        sending = asyncio.create_task(send())
        await scripted.wait_for(lambda: reached(scripted))
        sending.cancel()
        await asyncio.wait({sending})
        await transaction.abort()

        await eventually(lambda: smarthost._pool.borrowed == 0)
        assert smarthost._pool.idle == 0
        if place != "body":  # there the smarthost does not read, and so cannot see the end
            await scripted.wait_until_closed()


async def test_an_early_word_in_the_idle_time_of_a_reused_connection_is_no_reply(relay_to) -> None:
    """It comes with the reply to the dot before, in one packet."""
    async with ScriptedSmarthost(dot=in_turn(sequence(raw(b"250 2.0.0 ok\r\n250 2.0.0 again\r\n")))) as scripted:
        smarthost = relay_to(scripted)
        await deliver(smarthost)
        await deliver(smarthost, [BOB])

        assert len(scripted.connections) == 2
