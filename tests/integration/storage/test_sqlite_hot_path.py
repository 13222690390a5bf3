"""SQLite on the path of a reply: together in one commit, never waiting, and the log stays short."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from smtpguard.errors import StoreUnavailable
from smtpguard.storage import Store, open_store, sqlite_checkpoints
from smtpguard.storage.sqlite_hot_path import ROWS_AT_ONCE, SqliteHotPath
from tests.integration.storage.builders import NOW, SECOND, act, entry, flag, import_row, writer_of

KEY = "u@example.org"
MAX_LOG_BYTES = 10 * 2**20
"""With a checkpoint every 500 pages; a log that never began anew would have four times as many."""


@pytest.fixture
async def store(sqlite_url) -> AsyncIterator[Store]:
    async with open_store(sqlite_url) as store:
        yield store


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def hot_path_of(store: Store) -> SqliteHotPath:
    return store.ledger._hot_path


def statements_of(store: Store) -> list[str]:
    """Every statement of the event loop's connection from now on."""
    statements: list[str] = []
    hot_path_of(store)._connection.set_trace_callback(statements.append)
    return statements


def detours_of(store: Store) -> list[object]:
    """Every transaction of the writer from now on."""
    detours: list[object] = []
    event.listen(writer_of(store)._engine, "commit", detours.append)
    return detours


async def recorded(store: Store) -> set[str]:
    return {row.entry.transaction_id for row in await store.ledger.list(limit=0, after=None)}


async def test_recordings_of_one_turn_are_one_commit(store) -> None:
    statements, detours = statements_of(store), detours_of(store)
    entries = [entry(customer=customer) for customer in ("A", "A", None, "B")]

    await asyncio.gather(*(store.ledger.record([one]) for one in entries))

    assert 1 == statements.count("BEGIN IMMEDIATE") == statements.count("COMMIT")
    assert [] == detours
    assert {one.transaction_id for one in entries} == await recorded(store)


async def test_what_comes_in_the_next_turn_is_in_the_same_commit(store) -> None:
    statements = statements_of(store)
    first, second = entry(), entry()

    async def record_in_the_next_turn() -> None:
        await asyncio.sleep(0)
        await store.ledger.record([second])

    await asyncio.gather(store.ledger.record([first]), record_in_the_next_turn())

    assert statements.count("COMMIT") == 1
    assert {first.transaction_id, second.transaction_id} == await recorded(store)


async def test_latest_time_of_a_batch_stays(store) -> None:
    times = (NOW, NOW + 2 * SECOND, NOW + SECOND)

    await asyncio.gather(*(store.ledger.record([entry(KEY, customer="A", at=at)]) for at in times))

    [binding] = (await store.address_book.record(KEY)).bindings
    assert NOW + 2 * SECOND == binding.last_seen


async def test_customer_seen_before_is_one_statement(store) -> None:
    await store.address_book.bind([KEY], customer="A", now=NOW)
    statements = statements_of(store)

    await store.address_book.bind([KEY], customer="A", now=NOW + SECOND)

    [begin, update, commit] = statements
    assert ("BEGIN IMMEDIATE", "COMMIT") == (begin, commit)
    assert update.startswith("UPDATE bindings")


async def test_committed_when_it_is_said(store, sqlite_url) -> None:
    with closing(sqlite3.connect(path_of(sqlite_url))) as another:
        for number in range(1, 20):
            await store.ledger.record([entry()])

            assert (number,) == another.execute("SELECT count(*) FROM ledger").fetchone()


async def test_full_disk_leaves_no_transaction_open(store) -> None:
    """What the event loop cannot write the writer can, perhaps; look-ups see what others commit all the while."""
    connection = hot_path_of(store)._connection
    connection.set_authorizer(None)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    detours = detours_of(store)

    for number in range(100):
        key = f"u{number}@example.org"
        await store.ledger.record([entry(key)])
        assert not connection.in_transaction
        await store.address_book.flag(import_row(key).mailbox, flag(), act())
        assert (await store.address_book.facts([key], customer=None, now=NOW))[key].flagged

    assert detours
    assert 100 == len(await recorded(store))


async def test_write_lock_is_taken(store, sqlite_url) -> None:
    """It waits in the writer's line; look-ups go on meanwhile."""
    statements = statements_of(store)
    with closing(sqlite3.connect(path_of(sqlite_url), isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        recording = asyncio.ensure_future(store.ledger.record([entry()]))
        binding = asyncio.ensure_future(store.address_book.bind([KEY], customer="A", now=NOW))
        while "BEGIN IMMEDIATE" not in statements:
            await asyncio.sleep(0)
        for _ in range(10):
            assert not (await store.address_book.facts([KEY], customer="A", now=NOW))[KEY].bound_to_customer
        assert not recording.done()
        assert not binding.done()
        another.execute("ROLLBACK")

        await asyncio.gather(recording, binding)

    assert 1 == len(await recorded(store))
    assert (await store.address_book.facts([KEY], customer="A", now=NOW))[KEY].bound_to_customer


async def test_bad_recording_fails_alone(store) -> None:
    good = [entry(), entry()]
    bad = entry(customer="")

    outcomes = await asyncio.gather(
        *(store.ledger.record([one]) for one in (good[0], bad, good[1])), return_exceptions=True
    )

    assert [None, None] == [outcomes[0], outcomes[2]]
    assert "customer_named" in str(outcomes[1])
    assert {one.transaction_id for one in good} == await recorded(store)


async def test_text_that_cannot_be_kept_fails_alone(store) -> None:
    good, bad = entry(), entry(transaction_id="\ud800")

    outcomes = await asyncio.gather(store.ledger.record([bad]), store.ledger.record([good]), return_exceptions=True)

    assert isinstance(outcomes[0], UnicodeEncodeError)
    assert {good.transaction_id} == await recorded(store)


async def test_recordings_that_cannot_be_put_together_do_not_hold_up_each_other(store) -> None:
    """Each is heard alone then, the bad one too."""
    async with asyncio.timeout(20):
        good, bad = await asyncio.gather(
            store.ledger.record([entry(KEY, customer="A")]),
            store.address_book.bind([KEY], customer="A", now=NOW.replace(tzinfo=None)),
            return_exceptions=True,
        )

    assert good is None
    assert "has no time zone" in str(bad)
    assert 1 == len(await recorded(store))


async def test_who_is_gone_is_not_recorded(store) -> None:
    gone = asyncio.ensure_future(store.ledger.record([entry()]))
    other = asyncio.ensure_future(store.ledger.record([kept := entry()]))
    await asyncio.sleep(0)
    gone.cancel()

    await asyncio.gather(gone, other, return_exceptions=True)

    assert gone.cancelled()
    assert {kept.transaction_id} == await recorded(store)


async def test_many_rows_do_not_hold_up_the_event_loop(store) -> None:
    detours = detours_of(store)

    await store.ledger.record([entry() for _ in range(ROWS_AT_ONCE)])
    assert [] == detours
    await store.ledger.record([entry() for _ in range(ROWS_AT_ONCE + 1)])

    assert 1 == len(detours)
    await store.address_book.bind([f"u{number}@x.example" for number in range(ROWS_AT_ONCE + 1)], customer="A", now=NOW)
    assert 2 == len(detours)
    assert 2 * ROWS_AT_ONCE + 1 == len(await recorded(store))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE addresses SET flag_since = NULL",
        "UPDATE vouchers SET revoked_at = NULL",
        "INSERT INTO vouchers (address_id, customer) VALUES (1, '')",
        "DELETE FROM ledger",
        "DROP TABLE bindings",
        "PRAGMA synchronous = OFF",
    ],
)
async def test_event_loop_cannot_change_a_standing(store, statement) -> None:
    """Look-ups share the connection of the ledger: what neither of them does is refused."""
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        hot_path_of(store)._connection.execute(statement)


async def test_event_loop_waits_for_no_disk(store) -> None:
    """Its commits are relaxed, and it moves no log."""
    connection = hot_path_of(store)._connection
    connection.set_authorizer(None)

    pragmas = ("synchronous", "wal_autocheckpoint", "busy_timeout")
    assert [1, 0, 0] == [connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas]


async def test_log_stays_short_under_endless_load(store, sqlite_url, monkeypatch) -> None:
    """Nobody ever pauses, so that the log never begins anew by itself."""
    monkeypatch.setattr(sqlite_checkpoints, "PAGES", 500)
    log = path_of(sqlite_url).with_name("store.db-wal")

    async def load(number: int) -> None:
        for turn in range(250):
            await store.ledger.record([entry(f"u{number}.{turn}.{one}@example.org") for one in range(20)])

    await asyncio.gather(*(load(number) for number in range(10)))

    assert log.stat().st_size < MAX_LOG_BYTES, log.stat().st_size
    with closing(sqlite3.connect(path_of(sqlite_url))) as another:
        assert (50_000,) == another.execute("SELECT count(*) FROM ledger").fetchone()


async def test_log_that_somebody_reads_is_left_alone(store, sqlite_url, monkeypatch) -> None:
    """A reader of another process that does not end holds nobody up; when it ends the log is moved."""
    monkeypatch.setattr(sqlite_checkpoints, "PAGES", 20)
    with closing(sqlite3.connect(path_of(sqlite_url), isolation_level=None)) as another:
        another.execute("BEGIN")
        another.execute("SELECT count(*) FROM ledger").fetchone()
        for _ in range(20):
            await store.ledger.record([entry()])
        another.execute("COMMIT")

    assert 20 == len(await recorded(store))


async def test_recordings_wait_while_the_log_begins_anew(store) -> None:
    checkpoints = hot_path_of(store)._checkpoints
    checkpoints.is_restarting = True
    recordings = [asyncio.ensure_future(store.ledger.record([entry()])) for _ in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(recording.done() for recording in recordings)

    checkpoints._restarted(None)

    await asyncio.gather(*recordings)
    assert 3 == len(await recorded(store))


async def test_disk_that_takes_its_time_does_not_stop_traffic(store, monkeypatch) -> None:
    """The recordings wait for a moment only; then they go the way of all writes."""
    monkeypatch.setattr(sqlite_checkpoints, "STANDSTILL_SECONDS", 0.01)
    hot_path_of(store)._checkpoints._restart()

    await store.ledger.record([entry()])

    assert 1 == len(await recorded(store))


async def test_closing_finishes_what_was_handed_in(sqlite_url) -> None:
    async with open_store(sqlite_url) as store:
        recordings = [asyncio.ensure_future(store.ledger.record([entry()])) for _ in range(50)]
        await asyncio.sleep(0)

    await asyncio.gather(*recordings)
    with pytest.raises(StoreUnavailable, match=r"^the store is closed$"):
        await store.ledger.record([entry()])
    with closing(sqlite3.connect(path_of(sqlite_url))) as another:
        assert (50,) == another.execute("SELECT count(*) FROM ledger").fetchone()


RECOVERER = """
import fcntl, sys
with open(sys.argv[1], "r+b", buffering=0) as index:
    fcntl.lockf(index, fcntl.LOCK_EX, 3, 120)  # WRITE, CHECKPOINT and RECOVER
    index.write(bytes(96))  # both copies of the header: the index is to be made anew
    print("locked", flush=True)
    sys.stdin.read()
"""


async def test_look_up_waits_for_a_recovery(store, sqlite_url) -> None:
    """Another process makes the index of the log anew, as after a crash: the look-up is a little late, and right."""
    await store.address_book.import_rows([import_row(KEY)], now=NOW, by="anna")
    pipe = asyncio.subprocess.PIPE
    index = path_of(sqlite_url).with_name("store.db-shm")
    recoverer = await asyncio.create_subprocess_exec(sys.executable, "-c", RECOVERER, index, stdin=pipe, stdout=pipe)
    assert recoverer.stdout is not None
    assert b"locked\n" == await recoverer.stdout.readline()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        hot_path_of(store)._connection.execute("SELECT 1 FROM addresses")

    looking = asyncio.ensure_future(store.address_book.facts([KEY], customer=None, now=NOW))
    await asyncio.sleep(0)
    await recoverer.communicate(b"")

    assert (await looking)[KEY].on_record


async def test_several_processes_record_at_full_speed(store, sqlite_url) -> None:
    """Each finds the lock taken now and then, by a commit or a checkpoint of the other: nothing is lost or twice there."""

    async def load(one: Store, name: str) -> None:
        for number in range(1000):
            await one.ledger.record([entry(transaction_id=f"{name}{number}", customer="A")])

    async with open_store(sqlite_url) as another:
        await asyncio.gather(
            *(load(one, name) for one, name in zip((store, store, another, another), "abcd", strict=True))
        )

    rows = await store.ledger.list(limit=0, after=None)
    assert 4000 == len(rows) == len({row.entry.transaction_id for row in rows})
