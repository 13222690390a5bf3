"""Each defect of aiosmtpd 1.4.6 that a guard cannot live with: shown on the stock class, closed in ours.

The tests of the stock class are here so that nobody takes an override away because it looks needless, and so that a
newer aiosmtpd that mends one is noticed.
"""

import asyncio
import gc
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiosmtpd.smtp import SMTP

from smtpguard.smtp import connection, session
from tests.support.eventually import eventually
from tests.support.guard import RunningGuard, guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import Transcript, connected, greeted

ALICE, BOB, MALLORY = "alice@verified.example", "bob@verified.example", "mallory@unknown.example"


class StockHandler:
    """What a guard on the stock class would hang its work on."""

    def __init__(self) -> None:
        self.messages: list[list[str]] = []
        self.cancelled = False
        self.fail: BaseException | None = None
        self.entered = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def handle_DATA(self, server, session, envelope) -> str:
        self.entered.set()
        failure, self.fail = self.fail, None
        if failure:
            raise failure
        try:
            if self.hold:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.messages.append(list(envelope.rcpt_tos))
        return "250 OK"


@asynccontextmanager
async def stock(handler: object | None = None, **arguments) -> AsyncIterator[tuple[int, list[SMTP]]]:
    """A stock server: its port, and the protocols of its connections."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # it leaves exceptions of lost connections unread
    protocols: list[SMTP] = []

    def factory() -> SMTP:
        protocols.append(SMTP(handler or StockHandler(), hostname="stock.example", loop=loop, **arguments))
        return protocols[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], protocols
    finally:
        server.close()
        for protocol in protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        await asyncio.gather(*(protocol._handler_coroutine for protocol in protocols), return_exceptions=True)


@asynccontextmanager
async def ours(sqlite_url: str, smarthost: ScriptedSmarthost, **sections) -> AsyncIterator[RunningGuard]:
    """Our server, with Alice and Bob verified."""
    async with guarding(sqlite_url, smarthost.port, **sections) as guard:
        await verify(guard.desks, ALICE, BOB)
        yield guard


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


# a. An exception leaves the envelope behind: the next message goes to the recipients of the last one, too


def two_messages(first: str, second: str) -> list[str]:
    return [
        "MAIL FROM:<a@app.example>",
        f"RCPT TO:<{first}>",
        "DATA",
        "Subject: one",
        ".",
        "RSET",
        "MAIL FROM:<a@app.example>",
        f"RCPT TO:<{second}>",
        "DATA",
        "Subject: two",
        ".",
    ]


async def test_stock_recipients_leak_into_the_next_message() -> None:
    handler = StockHandler()
    handler.fail = RuntimeError("boom")
    async with stock(handler) as (port, _), greeted(port) as client:
        await client.send(*[line for line in two_messages(ALICE, BOB) if line != "RSET"])
        await client.expect("250 *", "250 *", "354 *", "500 *", "503 *", "250 *", "354 *", "250 *")

    assert handler.messages == [[ALICE, BOB]]


async def test_recipients_do_not_leak_into_the_next_message(sqlite_url, smarthost, break_quarantine) -> None:
    async with ours(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        break_quarantine(sqlite_url)
        await client.send(*[line for line in two_messages(MALLORY, BOB) if line != "RSET"])
        await client.expect("250 *", "250 *", "354 *", "451 4.3.0 *", "250 *", "250 *", "354 *", "250 2.0.0 *")

    assert [message.recipients for message in smarthost.messages] == [[BOB]]


@pytest.fixture
def break_quarantine():
    """Make the quarantine fail in a way that nobody foresaw."""

    def do(url: str) -> None:
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute("DROP TABLE quarantined_messages")
        connection.close()

    return do


# b. Without a line end, DATA is buffered without limit


async def flood(client: Transcript, octets: int) -> int:
    """Send so many octets without a line end, and return the peak of what was allocated meanwhile."""
    packet = b"a" * 65536
    gc.collect()
    tracemalloc.start()
    for _ in range(octets // len(packet)):
        await client.send_octets(packet)
    await client.send_octets(b"\r\n.\r\n")
    await client.expect("5*")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


async def test_stock_flood_without_line_end_fills_memory() -> None:
    async with stock(data_size_limit=100_000) as (port, _), greeted(port) as client:
        await client.envelope(ALICE)
        await client.ask("DATA", "354 *")

        assert await flood(client, 20_000_000) > 20_000_000


async def test_flood_without_line_end_is_bounded(sqlite_url, smarthost) -> None:
    async with ours(sqlite_url, smarthost, smtp={"max_message_bytes": 100_000}) as guard, greeted(guard.port) as client:
        await client.envelope(ALICE)
        await client.ask("DATA", "354 *")

        assert await flood(client, 20_000_000) < 4_000_000


# c. A client that reads nothing is never dropped


async def fill(client: Transcript) -> None:
    """Ask and never listen, until the server can write no more."""
    client.reader._transport.pause_reading()
    with pytest.raises((ConnectionError, TimeoutError)):  # noqa: PT012 - it is the loop that ends
        while True:
            client.writer.write(b"HELP\r\n" * 20_000)
            async with asyncio.timeout(0.5):
                await client.writer.drain()


async def test_stock_client_that_does_not_read_stays_for_ever() -> None:
    async with stock(timeout=0.3) as (port, protocols), connected(port) as client:
        await fill(client)
        await eventually(lambda: protocols[0].transport is None or protocols[0].transport.is_closing())
        await asyncio.sleep(0.5)  # well over the time that our own server takes

        assert protocols[0].transport is not None
        client.reset()


async def test_client_that_does_not_read_is_dropped(sqlite_url, smarthost, monkeypatch) -> None:
    monkeypatch.setattr(connection, "CLOSE_GRACE_SECONDS", 0.1)
    seen = []
    made = session.GuardSMTP.connection_made
    lost = session.GuardSMTP.connection_lost
    monkeypatch.setattr(session.GuardSMTP, "connection_made", lambda self, t: (seen.append("made"), made(self, t))[1])
    monkeypatch.setattr(session.GuardSMTP, "connection_lost", lambda self, e: (seen.append("lost"), lost(self, e))[1])
    async with ours(sqlite_url, smarthost, smtp={"idle_timeout": 0.3}) as guard, connected(guard.port) as client:
        await fill(client)
        await eventually(lambda: seen == ["made", "lost"])
        client.reset()


# d. The size limits of commands belong to the class, and every new connection clears them

LONG_MAIL = f"MAIL FROM:<{'a' * 60}@{'.'.join(['b' * 60] * 3)}.example> SIZE=1".ljust(530)
"""Of 530 octets: 512, and the 26 that SIZE adds, are allowed (RFC 1870 3)."""


async def test_stock_new_connection_takes_away_the_room_of_the_others() -> None:
    async with stock() as (port, _), greeted(port) as client:
        await client.ask(LONG_MAIL, "250 *")
        await client.ask("RSET", "250 *")
        async with connected(port) as other:
            await other.expect("220 *")
            await client.ask(LONG_MAIL, "500 *")


async def test_new_connection_takes_nothing_from_the_others(sqlite_url, smarthost) -> None:
    async with ours(sqlite_url, smarthost) as guard, greeted(guard.port) as client, connected(guard.port) as other:
        await other.expect("220 *")
        await client.ask(LONG_MAIL, "250 *")


# e. One time-out covers the whole of an upload and of the handler behind it


async def trickle(client: Transcript) -> str:
    """Upload steadily, for longer than the time-out, and never silent for as long as it."""
    await client.envelope(ALICE)
    await client.ask("DATA", "354 *")
    for _ in range(10):
        await client.send("line")
        await asyncio.sleep(0.1)
    await client.send(".")
    return await client.reply()


async def test_stock_steady_upload_is_cut() -> None:
    async with stock(timeout=0.5) as (port, _), greeted(port) as client:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await trickle(client)


async def test_steady_upload_is_not_cut(sqlite_url, smarthost) -> None:
    async with ours(sqlite_url, smarthost, smtp={"idle_timeout": 0.5}) as guard, greeted(guard.port) as client:
        assert (await trickle(client)).startswith("250 2.0.0 ")


async def test_silent_upload_is_cut_with_a_reply(sqlite_url, smarthost) -> None:
    async with ours(sqlite_url, smarthost, smtp={"idle_timeout": 0.2}) as guard, greeted(guard.port) as client:
        await client.envelope(ALICE)
        await client.ask("DATA", "354 *")
        await client.send("line")
        await client.expect("421 4.4.2 *")
        assert await client.at_end()


# f. Addresses are read leniently

LENIENT = [
    "<u@=?utf-8?q?evil.example?=>",
    "<u(comment)@c.example>",
    "< u @ c.example >",
    "<@a.example,@b.example:u@c.example>",
    "<bad@c.example",
    "<a\0b@c.example>",
    "<a\rb@c.example>",
    "<>",
]


@pytest.mark.parametrize("path", LENIENT)
async def test_stock_takes_addresses_that_are_none(path) -> None:
    async with stock() as (port, _), greeted(port) as client:
        await client.ask("MAIL FROM:<a@app.example>", "250 *")
        await client.ask(f"RCPT TO:{path}", "250 *")


@pytest.mark.parametrize("path", LENIENT)
async def test_addresses_that_are_none_are_refused(sqlite_url, smarthost, path) -> None:
    async with ours(sqlite_url, smarthost, policy={"unverified": "relay"}) as guard, greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@app.example>", "250 *")
        await client.ask(f"RCPT TO:{path}", "5?[13] 5.1.3 *")
        await client.ask("DATA", "503 *")


async def test_local_part_that_looks_encoded_is_taken_literally(sqlite_url, smarthost) -> None:
    """It is an address as RFC 5321 has it; the stock class makes "u@evil.example"@c.example of it."""
    address = "=?utf-8?q?u=40evil.example?=@c.example"
    async with ours(sqlite_url, smarthost, policy={"unverified": "relay"}) as guard, greeted(guard.port) as client:
        await client.message(address)

    assert smarthost.messages[0].recipients == [address]


# g. The text of an exception goes to the peer, as a permanent failure


async def test_stock_tells_its_inside() -> None:
    handler = StockHandler()
    handler.fail = RuntimeError("password is swordfish")
    async with stock(handler) as (port, _), greeted(port) as client:
        assert await client.message(ALICE) == "500 Error: (RuntimeError) password is swordfish"


async def test_nothing_of_the_inside_is_told(sqlite_url, smarthost, break_quarantine) -> None:
    async with ours(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        break_quarantine(sqlite_url)
        assert await client.message(MALLORY) == "451 4.3.0 Temporary failure, try again later"


# h. A ConnectionResetError of the other side is taken for the loss of the client


async def test_stock_takes_a_lost_smarthost_for_a_lost_client() -> None:
    handler = StockHandler()
    handler.fail = ConnectionResetError("the smarthost went away")
    async with stock(handler) as (port, _), greeted(port) as client:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.message(ALICE)


async def test_lost_smarthost_is_told_to_the_client(sqlite_url, smarthost, monkeypatch) -> None:
    """Even where the relay let such an error through."""
    from smtpguard.service.accept import Transaction

    async def lost(self, recipient):
        raise ConnectionResetError("the smarthost went away")

    async with ours(sqlite_url, smarthost) as guard, greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@app.example>", "250 *")
        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "add_recipient", lost)
            await client.ask(f"RCPT TO:<{ALICE}>", "451 4.3.0 *")
        assert (await client.message(ALICE)).startswith("250 ")


# i. A client that leaves cancels what is under way


async def test_stock_client_that_leaves_cancels_the_handler() -> None:
    handler = StockHandler()
    handler.hold = asyncio.Event()
    async with stock(handler) as (port, _), greeted(port) as client:
        await client.envelope(ALICE)
        await client.ask("DATA", "354 *")
        await client.send("Subject: one", ".")
        await handler.entered.wait()
        client.close()
        await eventually(lambda: handler.cancelled)

    assert handler.messages == []
