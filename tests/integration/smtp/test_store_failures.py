"""The store is down, goes away, or is full: the application hears 4yz and nothing is relayed."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing

import pytest

from smtpguard.domain.quarantined import QuarantineState
from smtpguard.errors import StoreUnavailable
from smtpguard.storage.quarantine import Quarantine
from tests.support.eventually import eventually
from tests.support.guard import RunningGuard, guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost, hold, refuse
from tests.support.transcript import greeted

ALICE, STRANGER = "alice@verified.example", "xyz123@provider.example"


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


async def test_postgresql_goes_away_and_comes_back(own_postgres_server, smarthost) -> None:
    async with guarding(own_postgres_server.new_store(), smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            assert (await client.message(ALICE, STRANGER)).startswith("250 ")
            await asyncio.to_thread(own_postgres_server.kill)
            await client.ask("MAIL FROM:<a@app.example>", "250 *")
            await client.ask(f"RCPT TO:<{ALICE}>", "451 4.3.0 *")
            await client.ask(f"RCPT TO:<{STRANGER}>", "451 4.3.0 *")
            await client.ask("DATA", "554 *")
            await client.ask("RSET", "250 *")
            await asyncio.to_thread(own_postgres_server.start)

            async def works_again() -> bool:
                await client.send("RSET", "MAIL FROM:<a@app.example>", f"RCPT TO:<{ALICE}>")
                await client.expect("250 *", "250 *")
                return (await client.reply()).startswith("250 ")

            await eventually(works_again)
            await client.ask("RSET", "250 *")
            assert (await client.message(ALICE, STRANGER)).startswith("250 ")
        assert len(await guard.waiting()) == 2

    assert len(smarthost.messages) == 2


@pytest.mark.parametrize("recipients", [[ALICE], [STRANGER], [ALICE, STRANGER]])
async def test_postgresql_goes_away_before_the_end_of_data(own_postgres_server, smarthost, recipients) -> None:
    async with guarding(own_postgres_server.new_store(), smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.envelope(*recipients)
            await client.ask("DATA", "354 *")
            await asyncio.to_thread(own_postgres_server.kill)
            await client.send("Subject: x", ".")
            await client.expect("451 4.3.0 *")
            await client.ask("DATA", "503 *")
        await smarthost.wait_for(lambda: not any(transaction.wire for transaction in smarthost.transactions))

    assert smarthost.messages == []


async def test_postgresql_goes_away_before_the_quarantine_is_committed(own_postgres_server, smarthost) -> None:
    """The smarthost has the body and never gets the dot."""
    go_ahead = asyncio.Event()
    smarthost.data = hold(go_ahead)
    async with guarding(own_postgres_server.new_store(), smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.envelope(ALICE, STRANGER)
            await client.ask("DATA", "354 *")
            await client.send("Subject: x", ".")
            await smarthost.wait_for_command("DATA")
            await asyncio.to_thread(own_postgres_server.kill)
            go_ahead.set()
            await client.expect("451 4.3.0 *")
        await smarthost.wait_until_closed()

    assert smarthost.messages == []
    assert smarthost.transactions[0].wire


async def test_postgresql_goes_away_while_the_smarthost_thinks(own_postgres_server, smarthost) -> None:
    """The smarthost took it, and the quarantine was committed before: 250, though the ledger cannot be written."""
    answer = asyncio.Event()
    smarthost.dot = hold(answer)
    async with guarding(own_postgres_server.new_store(), smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.envelope(ALICE, STRANGER)
            await client.ask("DATA", "354 *")
            await client.send("Subject: x", ".")
            await smarthost.wait_for_message()
            await asyncio.to_thread(own_postgres_server.kill)
            answer.set()
            await client.expect("250 2.0.0 *")
        await asyncio.to_thread(own_postgres_server.start)

        async def is_quarantined() -> bool:
            return await guard.waiting_for() == [STRANGER]

        await eventually(is_quarantined)


async def test_commit_whose_outcome_is_not_known(sqlite_url, smarthost, monkeypatch) -> None:
    """It was written, and the connection was lost before the store could say so: it is taken back."""
    keep = Quarantine.keep

    async def lost_at_the_commit(self, messages, content) -> None:
        await keep(self, messages, content)
        raise StoreUnavailable

    monkeypatch.setattr(Quarantine, "keep", lost_at_the_commit)
    async with guarding(sqlite_url, smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            assert (await client.message(ALICE, STRANGER)).startswith("451 4.3.0 ")
        assert await guard.desks.quarantine.list(limit=0, states=set(QuarantineState)) == []

    assert smarthost.messages == []


async def test_disk_full(sqlite_url, smarthost, monkeypatch) -> None:
    """A file that may not grow any more stands for a disk that is full; SQLite says the same of both."""
    from smtpguard.storage import sqlite

    monkeypatch.setattr(sqlite, "_PRAGMAS", (*sqlite._PRAGMAS, "PRAGMA max_page_count = 200"))
    async with guarding(sqlite_url, smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            assert (await client.message(STRANGER)).startswith("250 ")
            assert (await client.message(ALICE, STRANGER, wire=unpackable(3_000_000))).startswith("452 4.3.1 ")
            assert (await client.message(STRANGER)).startswith("250 ")
        everything = await guard.desks.quarantine.list(limit=0, states=set(QuarantineState))

    assert [message.recipient.text for message in everything] == [STRANGER] * 2
    assert smarthost.messages == []


def unpackable(octets: int) -> bytes:
    """A message that hardly shrinks when it is packed."""
    text = random.Random(1).randbytes(octets).hex().encode()
    return b"Subject: x\r\n\r\n" + b"".join(text[start : start + 76] + b"\r\n" for start in range(0, len(text), 76))


async def test_store_locked_by_another_process(sqlite_url, smarthost, monkeypatch) -> None:
    """Look-ups go on; what must be written waits, and then is deferred."""
    monkeypatch.setattr("smtpguard.storage.sqlite.BUSY_SECONDS", 0.2)
    file = sqlite_url.removeprefix("sqlite:///")
    async with guarding(sqlite_url, smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            with closing(sqlite3.connect(file, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                await client.envelope(ALICE, STRANGER)
                await client.ask("DATA", "354 *")
                await client.send("Subject: x", ".")
                await client.expect("451 4.3.0 *")
                assert (await client.message(ALICE)).startswith("250 ")
            assert (await client.message(ALICE, STRANGER)).startswith("250 ")
        assert await guard.waiting_for() == [STRANGER]

    assert len(smarthost.messages) == 2


async def test_shutdown_finishes_what_is_past_the_end_of_data(sqlite_url, smarthost) -> None:
    """The application gets its 250 and then 421; an idle one gets 421 at once."""
    answer, stop = asyncio.Event(), asyncio.Event()
    smarthost.dot = hold(answer)
    started: asyncio.Future[RunningGuard] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        async with guarding(sqlite_url, smarthost.port) as guard:
            await verify(guard.desks, ALICE)
            started.set_result(guard)
            await stop.wait()

    running = asyncio.create_task(run())
    port = (await started).port
    async with greeted(port) as busy, greeted(port) as uploading, greeted(port) as idle:
        await busy.envelope(ALICE, STRANGER)
        await busy.ask("DATA", "354 *")
        await busy.send("Subject: x", ".")
        await smarthost.wait_for_message()
        await uploading.envelope(STRANGER)
        await uploading.ask("DATA", "354 *")
        stop.set()
        await idle.expect("421 4.3.2 *")
        await uploading.expect("421 4.3.2 *")
        answer.set()
        await busy.expect("250 2.0.0 *", "421 4.3.2 *")
        for client in (idle, uploading, busy):
            assert await client.at_end()
    await running

    assert smarthost.messages[0].code == 250


async def test_shutdown_does_not_wait_for_ever(sqlite_url, smarthost, capsys) -> None:
    """A smarthost that never answers: the application is cut off and tries again."""
    smarthost.dot = hold(asyncio.Event())
    async with AsyncExitStack() as outer:
        async with guarding(sqlite_url, smarthost.port, smtp={"shutdown_timeout": 0.2}) as guard:
            await verify(guard.desks, ALICE)
            client = await outer.enter_async_context(greeted(guard.port))
            await client.envelope(ALICE)
            await client.ask("DATA", "354 *")
            await client.send("Subject: x", ".")
            await smarthost.wait_for_message()
        assert await client.at_end()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "transaction-cut-off" in line]

    assert ALICE in line


def drop_table(url: str, table: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute(f"DROP TABLE {table}")


async def test_ledger_that_fails_in_an_unforeseen_way_changes_no_reply(sqlite_url, smarthost) -> None:
    """The message has found its owners: 250 stands, and the guard goes on."""
    async with guarding(sqlite_url, smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        drop_table(sqlite_url, "ledger")
        async with greeted(guard.port) as client:
            for _ in range(2):
                assert (await client.message(ALICE, STRANGER)).startswith("250 ")
        async with greeted(guard.port) as another:
            await another.ask("NOOP", "250 *")
        assert await guard.waiting_for() == [STRANGER] * 2

    assert len(smarthost.messages) == 2


async def test_take_back_that_fails_in_an_unforeseen_way_changes_no_reply(sqlite_url, smarthost, monkeypatch) -> None:
    async def broken(self, transaction_id) -> int:
        raise RuntimeError("boom")

    monkeypatch.setattr(Quarantine, "take_back", broken)
    smarthost.dot = refuse(554, "5.7.1 spam")
    async with guarding(sqlite_url, smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            assert await client.message(ALICE, STRANGER) == "554 5.7.1 spam"
            smarthost.dot = None
            assert (await client.message(ALICE)).startswith("250 ")
