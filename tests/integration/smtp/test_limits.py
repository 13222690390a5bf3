"""The limits of a session: each answers with its 4yz, and takes nothing from anybody else."""

import asyncio
import io
import json
from contextlib import AsyncExitStack

import pytest

from smtpguard.telemetry import configure_logging
from tests.support.eventually import eventually
from tests.support.guard import guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import connected, greeted

ALICE = "alice@verified.example"


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


async def test_sessions_of_a_network(sqlite_url, smarthost) -> None:
    smtp = {"max_sessions_per_network": 2}
    async with guarding(sqlite_url, smarthost.port, smtp=smtp) as guard, connected(guard.port) as first:
        await first.hello()
        async with connected(guard.port) as second, connected(guard.port) as third:
            await second.hello()
            await third.expect("421 4.7.0 *")
            assert await third.at_end()
            await second.ask("QUIT", "221 *")
            assert await second.at_end()
        async with connected(guard.port) as fourth:
            await fourth.hello()


async def test_commands_without_a_message(sqlite_url, smarthost) -> None:
    async with (
        guarding(sqlite_url, smarthost.port, smtp={"max_commands": 100}) as guard,
        connected(guard.port) as client,
    ):
        await verify(guard.desks, ALICE)
        await client.hello()
        for _ in range(2):  # counted anew after each message
            await client.send(*["NOOP"] * 90)
            await client.expect(*["250 *"] * 90)
            assert (await client.message(ALICE)).startswith("250 ")
        await client.send(*["NOOP"] * 200)
        await client.expect(*["250 *"] * 100, "421 4.7.0 *")

        assert await client.at_end()


async def test_errors(sqlite_url, smarthost) -> None:
    async with (
        guarding(sqlite_url, smarthost.port, smtp={"max_errors": 3}) as guard,
        greeted(guard.port) as client,
    ):
        await client.send("RCPT TO:<a@b.example>", "DATA", "VRFY", "DATA", "EHLO again")
        await client.expect("503 *", "503 *", "501 *", "503 *", "421 4.7.0 *")

        assert await client.at_end()


async def test_unknown_commands_are_errors(sqlite_url, smarthost) -> None:
    """As many as others; the stock class hangs up after five, and goes on with what was pipelined behind them."""
    async with guarding(sqlite_url, smarthost.port, smtp={"max_errors": 7}) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            message = ["MAIL FROM:<a@b.example>", f"RCPT TO:<{ALICE}>", "DATA", "Subject: x", "", "x", "."]
            await client.send(*["NONSENSE"] * 8, *message)
            await client.expect(*["500 5.5.1 *"] * 8, "421 4.7.0 *")
            assert await client.at_end()

    assert smarthost.count("MAIL") == 0


async def test_refused_recipients_are_no_errors(sqlite_url, smarthost) -> None:
    """An application with a bad address list is served to the end."""
    sections = {"smtp": {"max_errors": 1}, "policy": {"unverified": "reject"}}
    async with guarding(sqlite_url, smarthost.port, **sections) as guard, greeted(guard.port) as client:
        for _ in range(3):
            await client.ask("MAIL FROM:<a@b.example>", "250 *")
            await client.ask("RCPT TO:<stranger@provider.example>", "550 5.7.1 *")
            await client.ask("RCPT TO:<no address>", "553 5.1.3 *")
            await client.ask("DATA", "554 5.5.1 *")
            await client.ask("RSET", "250 *")


@pytest.mark.parametrize("chunked", [False, True])
async def test_message_that_comes_too_slowly(sqlite_url, smarthost, chunked) -> None:
    """It never pauses for as long as an application may, and is cut off all the same."""
    smtp = {"idle_timeout": 0.4, "min_data_rate": 1000}
    async with guarding(sqlite_url, smarthost.port, smtp=smtp) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.envelope(ALICE)
            if chunked:
                await client.send("BDAT 1000000 LAST")
            else:
                await client.ask("DATA", "354 *")
            said = asyncio.ensure_future(client.reply())
            while not said.done():
                client.writer.write(b"x")
                await asyncio.wait([said], timeout=0.02)

            assert (await said).startswith("421 4.4.2 ")
            assert await client.at_end()
        await eventually(lambda: not guard.guard._server._context.acceptor.spool.buffered_bytes)

    assert smarthost.messages == []


async def test_message_that_keeps_the_rate_may_take_longer(sqlite_url, smarthost) -> None:
    smtp = {"idle_timeout": 0.5, "min_data_rate": 1000}
    async with guarding(sqlite_url, smarthost.port, smtp=smtp) as guard:
        await verify(guard.desks, ALICE)
        never = asyncio.get_running_loop().create_future()
        async with greeted(guard.port) as client:
            await client.envelope(ALICE)
            await client.ask("DATA", "354 *")
            for _ in range(50):  # a second, twice as long as a silence may last
                await client.send_octets(b"x" * 98 + b"\r\n")
                await asyncio.wait([never], timeout=0.02)
            await client.ask(".", "250 *")


@pytest.mark.parametrize("chunked", [False, True])
async def test_silence_before_a_message_begins_with_its_command(sqlite_url, smarthost, chunked) -> None:
    """Not with the reply before it: who thinks before DATA may think before the message as well."""
    async with guarding(sqlite_url, smarthost.port, smtp={"idle_timeout": 1}) as guard:
        await verify(guard.desks, ALICE)
        never = asyncio.get_running_loop().create_future()
        async with greeted(guard.port) as client:
            await client.envelope(ALICE)
            await asyncio.wait([never], timeout=0.6)
            if chunked:
                await client.send("BDAT 6 LAST")
            else:
                await client.ask("DATA", "354 *")
            await asyncio.wait([never], timeout=0.6)
            await client.send_octets(b"a: b\r\n" if chunked else b"a: b\r\n.\r\n")
            await client.expect("250 *")


async def test_old_session_ends_between_two_transactions(sqlite_url, smarthost) -> None:
    smtp = {"max_session_age": 0.2}
    async with guarding(sqlite_url, smarthost.port, smtp=smtp) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as idle, greeted(guard.port) as busy:
            await busy.envelope(ALICE)
            await idle.expect("421 4.4.2 *")
            assert await idle.at_end()
            await busy.ask("DATA", "354 *")
            await busy.ask(".", "250 *")
            await busy.expect("421 4.4.2 *")
            assert await busy.at_end()

    assert len(smarthost.messages) == 1


async def test_old_session_does_not_keep_a_transaction_open_for_ever(sqlite_url, smarthost) -> None:
    smtp = {"max_session_age": 0.1, "idle_timeout": 0.3}
    async with guarding(sqlite_url, smarthost.port, smtp=smtp) as guard, greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        said = asyncio.ensure_future(client.reply())
        heard = []
        while not heard or heard[-1].startswith("250"):
            client.writer.write(b"NOOP\r\n")
            await asyncio.wait([said], timeout=0.05)
            if said.done():
                heard.append(said.result())
                said = asyncio.ensure_future(client.reply()) if heard[-1].startswith("250") else said

        assert heard[-1].startswith("421 4.4.2 ")


async def test_no_command_is_carried_out_behind_a_421(sqlite_url, smarthost) -> None:
    """It was sent, pipelined, before the 421 was heard; whoever sends it again must not send it twice."""
    async with guarding(sqlite_url, smarthost.port, smtp={"max_errors": 1}) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            message = ["MAIL FROM:<a@b.example>", f"RCPT TO:<{ALICE}>", "DATA", "Subject: x", "", "x", "."]
            await client.send("DATA", "DATA", *message)
            await client.expect("503 *", "503 *", "421 4.7.0 *")
            assert await client.at_end()

    assert smarthost.count("MAIL") == 0


async def test_memory_that_is_used_up(sqlite_url, smarthost) -> None:
    """By headers that go on and on: no message is begun then."""
    async with AsyncExitStack() as stack:
        smtp = {"max_buffered_bytes": 1_048_576}
        guard = await stack.enter_async_context(guarding(sqlite_url, smarthost.port, smtp=smtp))
        await verify(guard.desks, ALICE)
        spool = guard.guard._server._context.acceptor.spool
        client, *others = [await stack.enter_async_context(greeted(guard.port)) for _ in range(5)]
        for each in others:
            await each.envelope(ALICE)
            await each.ask("DATA", "354 *")
            await each.send_octets(b"Subject: " + b"x" * 240_000)
        await eventually(lambda: spool.buffered_bytes > 960_000)
        await client.envelope(ALICE)
        await client.ask("DATA", "452 4.3.1 *")
        await client.ask("BDAT 5 LAST\r\nabc", "452 4.3.1 *")
        for each in others:
            await each.ask("\r\n.", "250 *")
        await client.envelope(ALICE)  # a refused chunk ends the transaction
        await client.ask("DATA", "354 *")
        await client.ask(".", "250 *")
    assert spool.buffered_bytes == 0


@pytest.mark.parametrize("chunked", [False, True])
async def test_message_that_is_refused_as_it_comes_is_logged_with_its_reply(sqlite_url, smarthost, chunked) -> None:
    log = io.StringIO()
    configure_logging(format_="json", level="info", stream=log)
    async with guarding(sqlite_url, smarthost.port, smtp={"max_message_bytes": 2000}) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.envelope(ALICE)
            wire = b"x" * 5000 + b"\r\n"
            if chunked:
                await client.send_octets(b"BDAT 5002 LAST\r\n" + wire)
            else:
                await client.ask("DATA", "354 *")
                await client.send_octets(wire + b".\r\n")
            await client.expect("552 5.3.4 *")
    await eventually(lambda: "transaction-ended" in log.getvalue())
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (ended,) = [line for line in lines if line["event"] == "transaction-ended"]

    assert (ended["outcome"], ended["reply"][:9]) == ("refused", "552 5.3.4")
    assert ended["error"] == "the message has more than 2000 octets"
