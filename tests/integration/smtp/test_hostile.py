"""Hostile and broken mail is relayed, quarantined or refused with a proper reply, and the guard goes on."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.domain.message import stuff
from tests.support.guard import RunningGuard, guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import Transcript, connected, greeted

ALICE, STRANGER = "alice@verified.example", "xyz123@provider.example"


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def guard(sqlite_url, smarthost) -> AsyncIterator[RunningGuard]:
    async with guarding(sqlite_url, smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        yield guard


def behind_received(message: bytes) -> bytes:
    """What follows the three lines of our own field."""
    assert message.startswith(b"Received: ")
    return message.split(b"\r\n", 3)[3]


MIME = (
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain; charset="
    b"nonsense\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!\r\n--x\r\nContent-Type: multipart/mixed; boundary=x\r\n"
)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n\r\n",
        b"no header and no empty line\r\n",
        b"\x00\x00\x00\r\n\x00\r\n",
        b"Subject: \x00\xff\xfe\r\n\r\n\x00\r\n",
        b"Subject: =?utf-8?b?" + b"A" * 3000 + b"?=\r\n\r\n",
        MIME,
        b"From: a\r\n" * 2000 + b"\r\n",
        b"." * 1000 + b"\r\n" + b".\x00\r\n",
        b"x" * 20_000_000 + b"\r\n",
        b"Subject: x\r\n\r\n" + b"y" * 20_000_000 + b"\r\n",
        b"\r\n" + b"a\r\n" * 2_000_000,
    ],
    ids=lambda message: f"{message[:12]!r}+{len(message)}",
)
async def test_odd_message_comes_out_as_it_went_in(guard, smarthost, message) -> None:
    async with greeted(guard.port) as client:
        said = await client.message(ALICE, STRANGER, wire=stuff(message))
    (waiting,) = await guard.waiting()
    content = await guard.desks.store.quarantine.content(waiting.id)

    assert said.startswith("250 2.0.0 ")
    assert message == behind_received(smarthost.messages[0].message)
    assert message == behind_received(content.message)


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (b"Subject: x\r\n\r\na\nb\r\n", "550 5.6.0 *"),
        (b"Subject: x\r\n\r\na\rb\r\n", "550 5.6.0 *"),
        (b"Subject: x\r\n\r\na\n.\nMAIL FROM:<a@b.example>\nRCPT TO:<x@y.example>\nDATA\nb\n.\r\n", "550 5.6.0 *"),
        (b"Subject: x\r\n\r\na\n.\r\nMAIL FROM:<a@b.example>\r\n", "550 5.6.0 *"),
        (b"Subject: x\r\n\r\na\r.\r\nMAIL FROM:<a@b.example>\r\n", "550 5.6.0 *"),
        (b"Subject: " + b"a" * 300_000 + b"\r\n\r\n", "552 5.3.4 *"),
        (b"A: b\r\n" * 50_000 + b"\r\n", "552 5.3.4 *"),
    ],
)
async def test_message_that_could_be_read_in_two_ways_is_refused(guard, smarthost, wire, said) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, STRANGER)
        await client.ask("DATA", "354 *")
        await client.send_octets(wire + b".\r\n")
        await client.expect(said)
        assert (await client.message(ALICE)).startswith("250 ")

    assert len(smarthost.messages) == 1
    assert await guard.waiting() == []


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"Subject: x\n\nhello\n", b"Subject: x\r\n\r\nhello\r\n"),
        (b"Subject: x\r\n\na\n.\nb\r\n", b"Subject: x\r\n\r\na\r\n.\r\nb\r\n"),
        (b"Subject: x\n\na\n.\r\nMAIL FROM:<e@x>\r\n", b"Subject: x\r\n\r\na\r\n.\r\nMAIL FROM:<e@x>\r\n"),
        (b"Subject: x\n\n..a\r\n..b\n", b"Subject: x\r\n\r\n..a\r\n.b\r\n"),
        (b"X-Customer-ID: 4711\nSubject: x\n\n", b"Subject: x\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_line_feeds_are_normalized_where_that_is_asked_for(sqlite_url, smarthost, wire, message, chunked) -> None:
    """As one message for everybody: what was a line end for nobody is none for the smarthost either."""
    async with guarding(sqlite_url, smarthost.port, smtp={"bare_line_feeds": "normalize"}) as guard:
        await verify(guard.desks, ALICE)
        await verify(guard.desks, ALICE, customer="4711")
        async with greeted(guard.port) as client:
            await client.envelope(ALICE, STRANGER)
            if chunked:
                wire = wire.replace(b"\r\n..b", b"\r\n.b")  # dots are not stuffed here
                await client.send_octets(b"BDAT %d LAST\r\n%b" % (len(wire), wire))
            else:
                await client.ask("DATA", "354 *")
                await client.send_octets(wire + (b"" if wire.endswith(b"\r\n") else b"\r\n") + b".\r\n")
            await client.expect("250 *")
        (waiting,) = await guard.waiting()
        content = await guard.desks.store.quarantine.content(waiting.id)

    relayed = behind_received(smarthost.messages[0].message)
    assert relayed in (message, message + b"\r\n")  # DATA's own line end behind a bare LF
    assert relayed == behind_received(content.message)
    assert len(smarthost.messages) == 1


@pytest.mark.parametrize("wire", [b"a\r\n.\nMAIL FROM:<e@x>\r\n", b".\nMAIL FROM:<e@x>\r\n", b"a\rb\n\r\n"])
async def test_what_cannot_be_normalized_is_refused(sqlite_url, smarthost, wire) -> None:
    async with guarding(sqlite_url, smarthost.port, smtp={"bare_line_feeds": "normalize"}) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            assert (await client.message(ALICE, wire=wire)).startswith("550 5.6.0 ")

    assert smarthost.messages == []


async def test_thousand_recipients_and_one_too_many(guard, smarthost) -> None:
    recipients = [f"stranger{number}@provider.example" for number in range(999)]
    async with greeted(guard.port) as client:
        await client.send("MAIL FROM:<a@app.example>", *(f"RCPT TO:<{each}>" for each in [ALICE, *recipients]))
        await client.expect(*["250 *"] * 1001)
        await client.ask("RCPT TO:<one@toomany.example>", "452 4.5.3 *")
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await client.expect("250 *")

    assert smarthost.messages[0].recipients == [ALICE]
    assert sorted(recipients) == await guard.waiting_for()


async def test_recipients_that_are_refused_count(sqlite_url, smarthost) -> None:
    """Each is kept for the record; who asks for ever must not fill the memory."""
    sections = {"smtp": {"max_recipients": 3}, "policy": {"unverified": "reject"}}
    async with guarding(sqlite_url, smarthost.port, **sections) as guard, greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@app.example>", "250 *")
        for answer in ["550 5.7.1 *"] * 3 + ["452 4.5.3 *"] * 3:
            await client.ask(f"RCPT TO:<{STRANGER}>", answer)


async def test_size_over_the_limit(sqlite_url, smarthost) -> None:
    async with guarding(sqlite_url, smarthost.port, smtp={"max_message_bytes": 2000}) as guard:
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@app.example> SIZE=2001", "552 5.3.4 *")
            await client.envelope(STRANGER)
            await client.ask("DATA", "354 *")
            await client.send_octets(b"a" * 2001 + b"\r\n.\r\n")
            await client.expect("552 5.3.4 *")
            await client.ask("DATA", "503 *")
            assert (await client.message(STRANGER)).startswith("250 ")


async def test_memory_stays_bounded(guard, smarthost) -> None:
    """A message is there once while it is relayed, and packed once more while it is quarantined."""
    message = b"Subject: x\r\n\r\n" + b"y" * 20_000_000 + b"\r\n"
    gc.collect()
    tracemalloc.start()
    async with greeted(guard.port) as client:
        for _ in range(3):
            await client.envelope(STRANGER)
            await client.ask("DATA", "354 *")
            for start in range(0, len(message), 65536):
                await client.send_octets(message[start : start + 65536])
            await client.send(".")
            await client.expect("250 *")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 5 * len(message)


@pytest.mark.parametrize(
    "line",
    [
        b"\r\n",
        b"\x00\r\n",
        b"\xff\xfe\r\n",
        b"NONSENSE\r\n",
        b"EHLO\r\n",
        b"MAIL\r\n",
        b"MAIL FROM\r\n",
        b"MAIL FROM:<\xff@b.example>\r\n",
        b"RCPT TO:<a@b.example>\r\n",
        b"DATA now\r\n",
        b"DATA\r\n",
        b"RSET now\r\n",
        b"QUIT now\r\n",
        b"AUTH PLAIN AGEAYg==\r\n",
        b"STARTTLS\r\n",
        b"BDAT 2 LAST\r\nxx",
        b"XCLIENT ADDR=10.0.0.1\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"EXPN list\r\n",
        b"VRFY\r\n",
        b"HELP NONSENSE\r\n",
        b"X" * 5000 + b"\r\n",
    ],
)
async def test_bad_command_gets_a_proper_refusal(guard, line) -> None:
    """Code and enhanced code of one class, printable ASCII, and the session goes on."""
    async with greeted(guard.port) as client:
        await client.send_octets(line)
        said = await client.expect("[45]?? [45].?.? *")
        assert said[0] == said[4]
        assert (await client.message(ALICE)).startswith("250 ")


async def test_commands_before_ehlo(guard) -> None:
    async with connected(guard.port) as client:
        await client.expect("220 guard.example ESMTP smtpguard")
        for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<a@b.example>", "DATA"):
            await client.ask(line, "503 5.5.1 *")
        await client.ask("NOOP", "250 2.0.0 *")
        await client.ask("QUIT", "221 2.0.0 *")


async def test_nested_mail_and_rset(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE)
        await client.ask("MAIL FROM:<b@app.example>", "503 5.5.1 *")
        await client.ask("RSET", "250 2.0.0 *")
        await client.ask("DATA", "503 5.5.1 *")
        await client.envelope(STRANGER, ALICE)
        await client.ask("EHLO again", "250-*")
        await client.ask("DATA", "503 5.5.1 *")
        assert (await client.message(ALICE)).startswith("250 ")

    assert [message.recipients for message in smarthost.messages] == [[ALICE]]


async def test_session_over_the_limit(sqlite_url, smarthost) -> None:
    async with guarding(sqlite_url, smarthost.port, smtp={"max_sessions": 2}) as guard:
        async with greeted(guard.port) as one, greeted(guard.port), connected(guard.port) as third:
            await third.expect("421 4.7.0 *")
            assert await third.at_end()
            await one.ask("QUIT", "221 *")
            assert await one.at_end()
            async with greeted(guard.port) as fourth:
                await fourth.ask("NOOP", "250 *")


BODIES = st.lists(
    st.one_of(
        st.sampled_from([b"", b".", b"..", b".\x00", b"Subject: x", b"X-Other: 1", b" folded", b"a" * 5000]),
        st.binary(max_size=60).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")),
    ),
    max_size=30,
).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


async def send_in_pieces(client: Transcript, octets: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        await client.send_octets(octets[start:end])
        await asyncio.sleep(0)


@given(message=BODIES, cuts=st.lists(st.integers(0, 10_000), max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_message_comes_out_byte_for_byte(guard, smarthost, message, cuts) -> None:
    """However it is cut into packets; relayed, and released from quarantine."""
    before = len(smarthost.messages)
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, STRANGER)
        await client.ask("DATA", "354 *")
        await send_in_pieces(client, stuff(message) + b".\r\n", cuts)
        await client.expect("250 2.0.0 *")
    (waiting,) = await guard.waiting()
    await guard.desks.quarantine.release(waiting.id, by="anna", why="test")
    relayed, released = smarthost.messages[before:]

    assert relayed.recipients == [ALICE]
    assert released.recipients == [STRANGER]
    assert message == behind_received(relayed.message)
    assert relayed.message == released.message
