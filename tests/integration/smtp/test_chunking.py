"""BDAT (RFC 3030): a message in chunks."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.eventually import eventually
from tests.support.guard import RunningGuard, guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost, refuse
from tests.support.transcript import Transcript, greeted

ALICE, STRANGER = "alice@verified.example", "xyz123@provider.example"


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def guard(sqlite_url, smarthost):
    async with guarding(sqlite_url, smarthost.port, smtp={"spool_above": 4096}) as guard:
        await verify(guard.desks, ALICE)
        yield guard


def held(guard: RunningGuard) -> int:
    return guard.guard._server._context.acceptor.spool.buffered_bytes


async def chunk(client: Transcript, octets: bytes, *, last: bool = False) -> None:
    await client.send_octets(b"BDAT %d%b\r\n%b" % (len(octets), b" LAST" if last else b"", octets))


def behind_received(message: bytes) -> bytes:
    assert message.startswith(b"Received: ")
    return message.split(b"\r\n", 3)[3]


async def test_message_in_chunks_is_relayed_and_quarantined(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, STRANGER)
        await chunk(client, b"Subject: x\r")
        await client.expect("250 2.0.0 11 octets received")
        await chunk(client, b"\n\r\n.dot\r\n..\r\n.\r\n")
        await client.expect("250 2.0.0 *")
        await chunk(client, b"", last=True)
        await client.expect("250 2.0.0 OK id=*")
    (waiting,) = await guard.waiting()
    content = await guard.desks.store.quarantine.content(waiting.id)

    message = b"Subject: x\r\n\r\n.dot\r\n..\r\n.\r\n"
    assert message == behind_received(smarthost.messages[0].message)
    assert message == behind_received(content.message)
    assert waiting.recipient.text == STRANGER


async def test_chunks_of_a_pipelined_session(guard, smarthost) -> None:
    """RFC 3030 4.2: none has to wait for the reply to the one before."""
    async with greeted(guard.port) as client:
        await client.send_octets(
            b"MAIL FROM:<a@b.example>\r\nRCPT TO:<alice@verified.example>\r\nBDAT 14\r\nSubject: x\r\n\r\n"
            b"BDAT 8 LAST\r\nMAIL FR\nMAIL FROM:<c@d.example>\r\nQUIT\r\n"
        )
        await client.expect("250 *", "250 *", "250 *", "550 5.6.0 *", "250 *", "221 *")

    assert smarthost.messages == []


async def test_message_without_a_last_line_end_gets_one(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE)
        await chunk(client, b"Subject: x\r\n\r\nno end", last=True)
        await client.expect("250 *")

    assert smarthost.messages[0].message.endswith(b"\r\n\r\nno end\r\n")


async def test_bare_line_end_is_refused(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE)
        await chunk(client, b"Subject: x\r\n\r\na\n.\nb\r\n", last=True)
        await client.expect("550 5.6.0 *")
        assert (await client.message(ALICE)).startswith("250 ")


@pytest.mark.parametrize("last", [False, True])
async def test_chunk_out_of_place_is_read_and_refused(guard, last) -> None:
    """What stands in it is never taken for commands."""
    octets = b"MAIL FROM:<evil@provider.example>\r\nQUIT\r\n"
    async with greeted(guard.port) as client:
        await chunk(client, octets, last=last)
        await client.expect("503 5.5.1 *")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await chunk(client, octets, last=last)
        await client.expect("503 5.5.1 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "503 5.5.1 *")  # RFC 3030 2: the transaction is over


async def test_no_part_of_a_message_is_taken_for_the_whole(guard, smarthost) -> None:
    """A chunk was refused, and those that were pipelined behind it would be welcome by themselves."""
    async with greeted(guard.port) as client:
        await client.send("MAIL FROM:<a@b.example>", "RCPT TO:<no address>")
        await chunk(client, b"Subject: first half\r\n\r\n")
        await client.send(f"RCPT TO:<{ALICE}>")
        await chunk(client, b"second half\r\n", last=True)
        await client.expect("250 *", "553 *", "503 *", "503 *", "503 *")

    assert smarthost.messages == []


async def test_chunk_without_a_valid_recipient(sqlite_url) -> None:
    async with (
        ScriptedSmarthost(rcpt=refuse(550, "5.1.1 unknown")) as smarthost,
        guarding(sqlite_url, smarthost.port) as guard,
        greeted(guard.port) as client,
    ):
        await verify(guard.desks, ALICE)
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "550 5.1.1 *")
        await chunk(client, b"x\r\n", last=True)
        await client.expect("554 5.5.1 *")


@pytest.mark.parametrize("command", ["MAIL FROM:<a@b.example>", "RCPT TO:<alice@verified.example>", "DATA"])
async def test_commands_between_chunks(guard, smarthost, command) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE)
        await chunk(client, b"Subject: x\r\n\r\n")
        await client.expect("250 *")
        await client.ask(command, "503 5.5.1 *")
        await client.ask("NOOP", "250 *")
        await chunk(client, b"x\r\n", last=True)
        await client.expect("250 *")

    assert len(smarthost.messages) == 1


@pytest.mark.parametrize("command", ["RSET", "EHLO again", "HELO again"])
async def test_reset_between_chunks_forgets_them(guard, smarthost, command) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE)
        await chunk(client, b"Subject: x\r\n\r\nlost\r\n")
        await client.expect("250 *")
        await client.ask(command, "250*")
        await chunk(client, b"x\r\n", last=True)
        await client.expect("503 5.5.1 *")
        assert held(guard) == 0
        await client.message(ALICE)

    assert b"lost" not in smarthost.messages[0].message


async def test_too_big_in_chunks(sqlite_url, smarthost) -> None:
    async with guarding(sqlite_url, smarthost.port, smtp={"max_message_bytes": 2000}) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.envelope(ALICE)
            await chunk(client, b"x" * 1500)
            await client.expect("250 *")
            await chunk(client, b"x" * 1500)
            await client.expect("552 5.3.4 *")
            await chunk(client, b"x" * 10, last=True)
            await client.expect("503 5.5.1 *")
            assert held(guard) == 0
            assert (await client.message(ALICE)).startswith("250 ")


@pytest.mark.parametrize("arg", ["", "ten", "-5", "5 FIRST"])
async def test_chunk_of_unknown_size_ends_the_session(guard, arg) -> None:
    """Nobody knows where it ends and the next command begins."""
    async with greeted(guard.port) as client:
        await client.envelope(ALICE)
        await client.send(f"BDAT {arg}", "MAIL FROM:<evil@provider.example>")
        await client.expect("501 5.5.4 *")

        assert await client.at_end()


async def test_client_that_leaves_within_a_chunk_leaves_nothing(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, STRANGER)
        await client.send_octets(b"BDAT 100000 LAST\r\nSubject: x\r\n\r\n" + b"x" * 50_000)
        await eventually(lambda: held(guard) > 0)
        client.reset()
        await eventually(lambda: held(guard) == 0)

    assert smarthost.messages == []
    assert await guard.waiting() == []


line = st.binary(max_size=20).map(lambda octets: octets.replace(b"\r", b".").replace(b"\n", b"."))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(line, max_size=6), cuts=st.sets(st.integers(0, 120)), packets=st.sets(st.integers(0, 300)))
async def test_however_a_message_is_cut_it_is_the_same(guard, smarthost, lines, cuts, packets) -> None:
    message = b"\r\n" + b"".join(each + b"\r\n" for each in lines)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(message)), len(message)]
    chunks = [message[begin:end] for begin, end in itertools.pairwise(edges)]
    wire = b"".join(b"BDAT %d\r\n%b" % (len(each), each) for each in chunks) + b"BDAT 0 LAST\r\n"
    edges = [0, *sorted(cut for cut in packets if 0 < cut < len(wire)), len(wire)]
    async with greeted(guard.port) as client:
        await client.envelope(ALICE)
        for begin, end in itertools.pairwise(edges):
            await client.send_octets(wire[begin:end])
        await client.expect(*["250 *"] * (len(chunks) + 1))

    assert message == behind_received(smarthost.messages[-1].message)
