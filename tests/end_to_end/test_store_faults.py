"""The store is locked, full, or goes away under the installed command: 4yz, nothing relayed, and then on as before."""

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from smtpguard.app import Desks, open_desks
from smtpguard.domain.quarantined import OPEN_STATES
from tests.integration.smtp.test_store_failures import unpackable
from tests.support.databases import PostgresServer
from tests.support.eventually import eventually
from tests.support.faults import ALICE, STRANGER, locked
from tests.support.guard import make_settings, verify
from tests.support.process import GuardProcess, guard_process
from tests.support.scripted_smarthost import ScriptedSmarthost, hold
from tests.support.transcript import Transcript, greeted

STORE_DOWN = "451 4.3.0 Recipients cannot be checked now, try again later"
STORE_FULL = "452 4.3.1 No room to keep the message now, try again later"


FULL = "from smtpguard.storage import sqlite; sqlite._PRAGMAS += ('PRAGMA max_page_count = 200',)"
IMPATIENT = """
from dataclasses import replace
from smtpguard.storage import postgres, sqlite
sqlite.BUSY_SECONDS = 1
postgres.LOOKUP_SECONDS = 1
postgres.LOOK_UP = replace(postgres.LOOK_UP, answer_seconds=0.5)
postgres.WORK = replace(postgres.WORK, settings=postgres.WORK.settings | {"lock_timeout": "500"})
"""
"""The same limits, shorter."""


def changed(directory: Path, code: str) -> dict[str, str]:
    """An environment in which the command runs this code first: what no setting can change."""
    (directory / "sitecustomize.py").write_text(code)  # it runs before the checkout is on the path
    return {"PYTHONPATH": f"{directory}:{Path.cwd()}"}


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@dataclass(frozen=True)
class Running:
    """The command, and the desks of an operator on its store."""

    guard: GuardProcess
    desks: Desks

    @property
    def port(self) -> int:
        return self.guard.port

    async def waiting_for(self) -> list[str]:
        return [message.recipient.text for message in await self.desks.quarantine.list(limit=0, states=OPEN_STATES)]


@asynccontextmanager
async def serving(
    store_url: str, smarthost: ScriptedSmarthost, directory: Path, **environment: str
) -> AsyncIterator[Running]:
    """Run the command, with ALICE verified."""
    async with (
        guard_process(store_url, smarthost.port, directory, **environment) as guard,
        open_desks(make_settings(store_url, smarthost.port)) as desks,
    ):
        await verify(desks, ALICE)
        yield Running(guard, desks)


async def test_sqlite_locked_by_another_process(sqlite_url, smarthost, tmp_path) -> None:
    """It is waited for, and then given up; a look-up waits for no lock."""
    async with serving(sqlite_url, smarthost, tmp_path, **changed(tmp_path, IMPATIENT)) as guard:
        await is_locked_out(guard, smarthost, locked(sqlite_url))


async def is_locked_out(guard: Running, smarthost: ScriptedSmarthost, lock: AbstractContextManager[None]) -> None:
    async with greeted(guard.port) as client:
        with lock:
            assert await client.message(ALICE, STRANGER) == STORE_DOWN
            await client.envelope(ALICE, STRANGER)
            await client.ask("RSET", "250 *")
        assert smarthost.messages == []
        assert (await client.message(ALICE, STRANGER)).startswith("250 ")

    assert await guard.waiting_for() == [STRANGER]
    assert [message.recipients for message in smarthost.messages] == [[ALICE]]


async def test_disk_full(sqlite_url, smarthost, tmp_path) -> None:
    """A file that may not grow any more stands for a disk that is full; SQLite says the same of both."""
    async with serving(sqlite_url, smarthost, tmp_path, **changed(tmp_path, FULL)) as guard:
        await refuses_what_is_too_big(guard, smarthost, STORE_FULL)


@pytest.mark.parametrize(
    ("where", "spool_above", "said"),
    [("store", 16 * 2**20, STORE_DOWN), ("spool", 2**17, STORE_FULL)],
    ids=["store", "spool"],
)
async def test_file_that_the_system_does_not_let_grow(
    sqlite_url, smarthost, tmp_path, where, spool_above, said
) -> None:
    """A quota, or a limit of the process; it is over when the limit is. A message in memory needs no spool."""
    environment = {"SMTPGUARD_SMTP__SPOOL_ABOVE": str(spool_above)}
    async with serving(sqlite_url, smarthost, tmp_path, **environment) as guard:
        process = psutil.Process(guard.guard.process.pid)
        _, most = process.rlimit(resource.RLIMIT_FSIZE)
        process.rlimit(resource.RLIMIT_FSIZE, (2_000_000, most))
        await refuses_what_is_too_big(guard, smarthost, said)
        process.rlimit(resource.RLIMIT_FSIZE, (most, most))
        async with greeted(guard.port) as client:
            assert (await client.message(ALICE, STRANGER, wire=unpackable(3_000_000))).startswith("250 ")

        assert await guard.waiting_for() == [STRANGER] * 3


async def refuses_what_is_too_big(guard: Running, smarthost: ScriptedSmarthost, said: str) -> None:
    async with greeted(guard.port) as client:
        assert (await client.message(STRANGER)).startswith("250 ")
        assert await client.message(ALICE, STRANGER, wire=unpackable(3_000_000)) == said
        assert (await client.message(STRANGER)).startswith("250 ")

    assert await guard.waiting_for() == [STRANGER] * 2
    assert smarthost.messages == []


# PostgreSQL


@dataclass(frozen=True)
class Outage:
    """Everything that a transaction wants to know when PostgreSQL goes away in the middle of it."""

    client: Transcript
    smarthost: ScriptedSmarthost
    go_away: Callable[[], Awaitable[None]]


async def before_rcpt(outage: Outage) -> None:
    await outage.client.ask("MAIL FROM:<a@app.example>", "250 *")
    await outage.go_away()
    await outage.client.ask(f"RCPT TO:<{ALICE}>", STORE_DOWN)
    await outage.client.ask(f"RCPT TO:<{STRANGER}>", STORE_DOWN)
    await outage.client.ask("DATA", "554 5.5.1 *")
    await outage.client.ask("RSET", "250 *")


async def between_rcpt_and_data(outage: Outage) -> None:
    await outage.client.envelope(ALICE, STRANGER)
    await outage.go_away()
    await outage.client.ask("DATA", "354 *")
    await outage.client.send("Subject: x", ".")
    await outage.client.expect(STORE_DOWN)


async def between_body_and_commit(outage: Outage) -> None:
    """The smarthost has the body, and never gets the dot."""
    go_ahead = asyncio.Event()
    outage.smarthost.data = hold(go_ahead)
    await outage.client.envelope(ALICE, STRANGER)
    await outage.client.ask("DATA", "354 *")
    await outage.client.send("Subject: x", ".")
    await outage.smarthost.wait_for_command("DATA", outage.smarthost.count("DATA") + 1)
    await outage.go_away()
    go_ahead.set()
    await outage.client.expect(STORE_DOWN)
    outage.smarthost.data = None


async def after_the_dot(outage: Outage) -> None:
    """The smarthost took it, and what is quarantined was committed before: the ledger alone is lost."""
    answer = asyncio.Event()
    before = len(outage.smarthost.messages)
    outage.smarthost.dot = hold(answer)
    await outage.client.envelope(ALICE, STRANGER)
    await outage.client.ask("DATA", "354 *")
    await outage.client.send("Subject: x", ".")
    await outage.smarthost.wait_for_message(before + 1)
    await outage.go_away()
    answer.set()
    await outage.client.expect("250 2.0.0 *")
    outage.smarthost.dot = None


async def test_postgresql_goes_away_and_comes_back(own_postgres_server, smarthost, tmp_path) -> None:
    """Before and within a transaction, at each step; one guard lives through all of it."""
    server: PostgresServer = own_postgres_server
    async with serving(server.new_store(), smarthost, tmp_path) as guard:
        taken = 0
        for phase in (before_rcpt, between_rcpt_and_data, between_body_and_commit, after_the_dot):
            async with greeted(guard.port) as client:
                await phase(Outage(client, smarthost, lambda: asyncio.to_thread(server.kill)))
                await client.ask("NOOP", "250 *")
            taken += phase is after_the_dot
            assert len(smarthost.messages) == taken, phase
            await asyncio.to_thread(server.start)
            await eventually(lambda: takes_a_message(guard))
            taken += 1
            assert await guard.waiting_for() == [STRANGER] * taken, phase
        errors = guard.guard.events("ledger-failed")

    assert [message.recipients for message in smarthost.messages] == [[ALICE]] * taken
    assert len(errors) == 1


async def takes_a_message(guard: Running) -> bool:
    async with greeted(guard.port) as client:
        return (await client.message(ALICE, STRANGER)).startswith("250 ")


async def test_postgresql_hangs(own_postgres_server, smarthost, tmp_path) -> None:
    """It keeps its connections and answers nobody."""
    url = own_postgres_server.new_store()
    async with serving(url, smarthost, tmp_path, **changed(tmp_path, IMPATIENT)) as guard:
        async with greeted(guard.port) as client:
            own_postgres_server.freeze()
            await client.ask("MAIL FROM:<a@app.example>", "250 *")
            await client.ask(f"RCPT TO:<{ALICE}>", STORE_DOWN)
            own_postgres_server.thaw()
            await client.ask("RSET", "250 *")
            assert (await client.message(ALICE, STRANGER)).startswith("250 ")

        assert await guard.waiting_for() == [STRANGER]


async def test_postgresql_locked_by_another_session(postgres_server, smarthost, tmp_path) -> None:
    """An operator's LOCK TABLE, a long migration."""
    url = postgres_server.new_store()
    async with serving(url, smarthost, tmp_path, **changed(tmp_path, IMPATIENT)) as guard:
        await is_locked_out(guard, smarthost, quarantine_locked(url))


@contextmanager
def quarantine_locked(url: str) -> Iterator[None]:
    """A lock on the quarantine, held by another session."""
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE quarantined_messages IN ACCESS EXCLUSIVE MODE")
        yield
