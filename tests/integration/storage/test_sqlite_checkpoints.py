"""Checkpoints of SQLite: the log begins anew under a load that never ends, and nobody waits for one that cannot be made."""

import asyncio
import sqlite3
import struct
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from smtpguard.storage import Store, open_store, sqlite_checkpoints
from smtpguard.storage.sqlite_checkpoints import Checkpoints
from tests.integration.storage.builders import CONTENT, NOW, SUMMARY, act, entry, flag, import_row, messages
from tests.support.eventually import eventually

KEY = "u@example.org"
MAX_LOG_BYTES = 6 * 2**20
"""Of two processes with a checkpoint every 500 pages: a log that never began anew would have more than twice as many."""


@pytest.fixture
async def store(sqlite_url) -> AsyncIterator[Store]:
    async with open_store(sqlite_url) as store:
        yield store


@pytest.fixture
def often(monkeypatch) -> None:
    """A checkpoint after every few commits."""
    monkeypatch.setattr(sqlite_checkpoints, "PAGES", 20)


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def log_of(url: str) -> Path:
    return path_of(url).with_name("store.db-wal")


def beginnings(url: str) -> int:
    """How often the log has begun anew: its header counts."""
    (number,) = struct.unpack(">I", log_of(url).read_bytes()[12:16])
    return int(number)


def checkpoints_of(store: Store) -> Checkpoints:
    return store.ledger._hot_path._checkpoints


async def record(store: Store, commits: int) -> None:
    """So many commits, one after the other."""
    for _ in range(commits):
        await store.ledger.record([entry()])


def recorded(url: str) -> int:
    with closing(sqlite3.connect(path_of(url))) as reader:
        [(count,)] = reader.execute("SELECT count(*) FROM ledger")
    return int(count)


async def ended(store: Store) -> None:
    """The checkpoint that is under way, if any, has ended."""
    await eventually(lambda: not checkpoints_of(store)._is_under_way)


async def test_log_begins_anew(store, sqlite_url, often) -> None:
    before = beginnings(sqlite_url) if log_of(sqlite_url).stat().st_size else 0

    await record(store, 10)
    await ended(store)

    assert beginnings(sqlite_url) > before


PROCESS = """
import asyncio, sys
from smtpguard.storage import open_store, sqlite_checkpoints
from tests.integration.storage.builders import entry

sqlite_checkpoints.PAGES = 500

async def load(store, name):
    for number in range(100):
        await store.ledger.record([entry(transaction_id=f"{name}.{number}.{one}") for one in range(20)])

async def main(url):
    async with open_store(url) as store:
        await asyncio.gather(*(load(store, f"{sys.argv[2]}.{number}") for number in range(10)))

asyncio.run(main(sys.argv[1]))
"""


async def test_log_of_two_processes_stays_short(store, sqlite_url) -> None:
    """Each moves it while the other commits and moves it as well; nothing is lost."""
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, sqlite_url, each) for each in "ab"]

    assert [0, 0] == await asyncio.gather(*(process.wait() for process in processes))

    assert log_of(sqlite_url).stat().st_size < MAX_LOG_BYTES
    assert 2 * 100 * 10 * 20 == recorded(sqlite_url)


async def test_log_that_others_make_long_begins_anew(store, sqlite_url, monkeypatch) -> None:
    """What an import or a big message writes is counted as well, though traffic commits little meanwhile."""
    monkeypatch.setattr(sqlite_checkpoints, "GROWTH_BYTES", 1_000_000)
    monkeypatch.setattr(sqlite_checkpoints, "LOOK_SECONDS", 0.0)
    await record(store, 1)
    before = beginnings(sqlite_url)
    with closing(sqlite3.connect(path_of(sqlite_url), isolation_level=None)) as another:
        another.execute("PRAGMA wal_autocheckpoint = 0")
        another.execute("CREATE TABLE big (content)")
        another.execute("INSERT INTO big VALUES (zeroblob(2000000))")

        await record(store, 1)
        await ended(store)

    assert before + 1 == beginnings(sqlite_url)


CHECKPOINTER = """
import fcntl, sys
with open(sys.argv[1], "r+b", buffering=0) as index:
    fcntl.lockf(index, fcntl.LOCK_EX, 1, 121)  # CHECKPOINT
    print("locked", flush=True)
    sys.stdin.read()
"""


@asynccontextmanager
async def checkpoint_of_another(url: str) -> AsyncIterator[None]:
    """Another process's checkpoint is under way."""
    pipe = asyncio.subprocess.PIPE
    index = path_of(url).with_name("store.db-shm")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CHECKPOINTER, index, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    assert b"locked\n" == await process.stdout.readline()
    yield
    await process.communicate(b"")


async def test_checkpoint_of_another_is_waited_for(store, sqlite_url, often, monkeypatch) -> None:
    """SQLite itself would give up at once, and the log would grow until the next try."""
    monkeypatch.setattr(sqlite_checkpoints, "TRIES", 2000)
    await store.ledger.record([entry()])
    before = beginnings(sqlite_url)
    async with checkpoint_of_another(sqlite_url):
        await record(store, 5)
        assert checkpoints_of(store)._is_under_way
        assert not checkpoints_of(store).is_restarting

    await ended(store)

    assert before + 1 == beginnings(sqlite_url)


async def test_checkpoint_of_another_that_does_not_end_holds_nobody_up(store, sqlite_url, often, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_checkpoints, "TRIES", 2)
    await store.ledger.record([entry()])
    before = beginnings(sqlite_url)
    async with checkpoint_of_another(sqlite_url):
        await record(store, 30)
        await ended(store)

    assert 31 == recorded(sqlite_url)
    assert before == beginnings(sqlite_url)


async def test_reader_that_keeps_its_transaction(store, sqlite_url, often) -> None:
    """The log grows, traffic goes on, a flag holds at once; when the reader has ended the log begins anew."""
    with closing(sqlite3.connect(path_of(sqlite_url), isolation_level=None)) as another:
        await record(store, 1)
        another.execute("BEGIN")
        another.execute("SELECT count(*) FROM ledger").fetchone()
        before = beginnings(sqlite_url)
        await record(store, 20)
        await store.address_book.flag(import_row(KEY).mailbox, flag(), act())
        assert (await store.address_book.facts([KEY], customer=None, now=NOW))[KEY].flagged
        await ended(store)
        assert before == beginnings(sqlite_url)
        another.execute("COMMIT")

    await record(store, 10)
    await ended(store)

    assert beginnings(sqlite_url) > before
    assert 31 == recorded(sqlite_url)


async def test_checkpoint_that_fails_is_tried_again(store, sqlite_url, often) -> None:
    """Nobody waits for it, neither what is recorded nor what is kept."""
    checkpoints = checkpoints_of(store)
    working, checkpoints._connection = checkpoints._connection, sqlite3.connect(":memory:", check_same_thread=False)
    checkpoints._connection.close()
    await store.ledger.record([entry()])
    before = beginnings(sqlite_url)

    await record(store, 20)
    await store.quarantine.keep(messages(), SUMMARY, [CONTENT.message])
    await ended(store)
    assert before == beginnings(sqlite_url)

    checkpoints._connection = working
    await record(store, 10)
    await ended(store)
    assert beginnings(sqlite_url) > before
    assert 31 == recorded(sqlite_url)


async def test_thread_that_cannot_begin_holds_nobody_up(store, sqlite_url, often, monkeypatch) -> None:
    """A process that may have no more threads commits all the same, and says so."""
    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def submit(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(ThreadPoolExecutor, "submit", submit)
        async with asyncio.timeout(20):
            await record(store, 10)
    assert "can't start new thread" in str(complaints[0])
    before = beginnings(sqlite_url)

    await record(store, 1)
    await ended(store)

    assert before + 1 == beginnings(sqlite_url)


async def test_closing_in_the_middle_of_checkpoints(sqlite_url, often) -> None:
    """What was handed in is written, whether the log began anew at that moment or not."""
    recordings = []
    for _ in range(5):
        async with open_store(sqlite_url) as store:
            for number in range(100):
                recordings.append(asyncio.ensure_future(store.ledger.record([entry()])))
                if number % 3 == 0:
                    await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await asyncio.gather(*recordings)

    async with open_store(sqlite_url) as store:
        assert 500 == recorded(sqlite_url)
