"""Writes: together in one transaction, each with its own outcome, and as durable as the most demanding of them."""

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import psycopg
import pytest
from sqlalchemy import Connection, event, func, insert, select, text
from sqlalchemy.exc import IntegrityError

from smtpguard.domain.message import HeaderSummary
from smtpguard.domain.quarantined import QuarantineState
from smtpguard.errors import StoreFull, StoreUnavailable
from smtpguard.storage import open_store, sqlite
from smtpguard.storage.line import LineFailed
from smtpguard.storage.tables import audit_log, message_contents
from smtpguard.storage.writer import Writer
from tests.integration.storage.builders import (
    CONTENT,
    NOW,
    SUMMARY,
    act,
    connected,
    flag,
    messages,
    voucher,
    writer_of,
)

NOT_UNIQUE = (sqlite3.IntegrityError, psycopg.IntegrityError)


@asynccontextmanager
async def held_up(store) -> AsyncIterator[Callable[[], None]]:
    """Keep the writer busy until the block ends, or what it is given is called."""
    busy, go = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        busy.set()
        assert go.wait(20)

    holding = asyncio.ensure_future(writer_of(store).write(work, durable=False))
    assert await asyncio.to_thread(busy.wait, 20)
    try:
        yield go.set
    finally:
        go.set()
        await holding


async def together(store, *writes) -> list:
    """Hand all of these in while the writer is busy, and return their outcomes."""
    async with held_up(store) as let_go:
        tasks = [asyncio.ensure_future(write) for write in writes]
        while writer_of(store)._line._waiting.qsize() < len(writes):
            await asyncio.sleep(0)
        let_go()
        return await asyncio.gather(*tasks, return_exceptions=True)


def add(name: str, *, twice: bool = False) -> Callable[[Connection], str]:
    values = {"transaction_id": name, "content": b"", "digest": "", "size": 0}
    values |= dict.fromkeys(("subject", "sender", "date", "message_id"), "")

    def work(connection: Connection) -> str:
        for _ in range(1 + twice):
            connection.execute(insert(message_contents), values)
        return name

    return work


def fail(connection: Connection) -> None:
    add("failed")(connection)
    raise LookupError("on purpose")


def names(url: str) -> set[str]:
    with connected(url) as connection:
        return set(connection.execute(select(message_contents.c.transaction_id)).scalars())


def durability(connection: Connection) -> str:
    """How the transaction of this connection is going to be committed."""
    if connection.dialect.name == "postgresql":
        return connection.execute(text("SHOW synchronous_commit")).scalar_one()
    return {1: "off", 2: "on"}[connection.exec_driver_sql("PRAGMA synchronous").scalar_one()]


def commits_of(writer: Writer) -> list[str]:
    """Every commit of the writer from now on: whether it waits for the disk."""
    commits: list[str] = []
    event.listen(writer._engine, "commit", lambda connection: commits.append(durability(connection)))
    return commits


async def test_writes_that_arrive_together_are_one_commit(store, store_url) -> None:
    writer = writer_of(store)
    commits = commits_of(writer)

    outcomes = await together(store, *(writer.write(add(f"{number}"), durable=True) for number in range(20)))

    assert [f"{number}" for number in range(20)] == outcomes
    assert 2 == len(commits)  # that which kept the writer busy, and one for all others
    assert set(outcomes) == names(store_url)


async def test_bad_write_fails_alone(store, store_url) -> None:
    """What a failed write has written is undone; the others are committed."""
    writer = writer_of(store)
    works = [add("a"), fail, add("b"), add("c", twice=True), add("d")]

    a, failed, b, twice, d = await together(store, *(writer.write(work, durable=True) for work in works))

    assert ["a", "b", "d"] == [a, b, d]
    assert "on purpose" == str(failed)
    assert isinstance(twice, IntegrityError)
    assert {"a", "b", "d"} == names(store_url)


async def test_mistake_of_ours_is_not_called_unavailable(store, store_url) -> None:
    """And is no success either."""
    await store.quarantine.keep(kept := messages(), SUMMARY, [CONTENT.message])

    with pytest.raises(NOT_UNIQUE):
        await store.quarantine.keep(kept, SUMMARY, [CONTENT.message])

    assert [kept[0].transaction_id] == list(names(store_url))


async def test_error_does_not_tell_what_was_written(store) -> None:
    """An error goes to the log; the content of a message must not."""
    secret = HeaderSummary("secret", "secret", "secret", "secret"), [b"secret"]
    await store.quarantine.keep(kept := messages(subject="secret"), *secret)

    with pytest.raises(NOT_UNIQUE) as raised:
        await store.quarantine.keep(kept, *secret)

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("durables", "commit"),
    [([True], "on"), ([False], "off"), ([False, False], "off"), ([False, True, False], "on")],
    ids=str,
)
async def test_commit_is_as_durable_as_the_most_demanding_write(store, durables, commit) -> None:
    """Each is told anew: one that need not wait takes nothing from the next."""
    writer = writer_of(store)
    for _ in range(2):
        outcomes = await together(store, *(writer.write(durability, durable=durable) for durable in durables))

        assert [commit] * len(durables) == outcomes
        assert "on" == await writer.write(durability, durable=True)


async def test_what_must_be_durable_is(store) -> None:
    """A quarantine commit is on disk before its 250; the ledger and the bindings have their own tests."""
    kept = messages()
    [mailbox] = [message.recipient for message in kept]
    moving = {"expected": QuarantineState.QUARANTINED, "to": QuarantineState.DISCARDED, "act": act()}
    commits = commits_of(writer_of(store))

    await store.quarantine.keep(kept, SUMMARY, [CONTENT.message])
    await store.quarantine.move(kept[0].id, **moving)
    await store.quarantine.take_back("T")
    await store.address_book.verify(mailbox, voucher(), act())
    await store.address_book.flag(mailbox, flag(), act())
    await store.address_book.unflag(mailbox, act())
    await store.audit_log.audit(act())

    assert ["on"] * 7 == commits


async def test_cancelled_while_it_is_written(store, store_url) -> None:
    """The write is completed; nobody hangs, and the writer goes on."""
    busy, go = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        add("slow")(connection)
        busy.set()
        assert go.wait(20)

    writing = asyncio.ensure_future(writer_of(store).write(slow, durable=True))
    assert await asyncio.to_thread(busy.wait, 20)
    writing.cancel()
    go.set()

    with pytest.raises(asyncio.CancelledError):
        await writing
    await writer_of(store).write(add("next"), durable=True)
    assert {"slow", "next"} == names(store_url)


async def test_closing_finishes_what_was_handed_in(store_url) -> None:
    async with open_store(store_url) as store:
        writer = writer_of(store)
        writing = [asyncio.ensure_future(writer.write(add(f"{number}"), durable=True)) for number in range(250)]
        await asyncio.sleep(0)

    assert {f"{number}" for number in range(250)} == set(await asyncio.gather(*writing)) == names(store_url)
    with pytest.raises(StoreUnavailable, match=r"^the store is closed$"):
        await writer.write(add("late"), durable=True)
    with pytest.raises(StoreUnavailable, match=r"^the store is closed$"):
        await store.quarantine.get("x")


async def test_nothing_is_written_before_the_answer_is_true(store, store_url) -> None:
    """Who is told that it was written finds it, from another connection, at once."""
    for number in range(20):
        name = await writer_of(store).write(add(f"{number}"), durable=bool(number % 2))

        assert name in names(store_url)


async def test_long_work_does_not_wait_for_the_writer(store) -> None:
    await store.audit_log.audit(act())

    async with held_up(store):
        assert 1 == len(await store.audit_log.list(limit=0, after=None))
        assert await store.audit_log.verify() is None
        assert not (await store.address_book.facts(["a@x.example"], customer=None, now=NOW))["a@x.example"].on_record


# SQLite


def leave_pages(pages: int) -> Callable[[Connection], None]:
    """Let the store grow by so many pages and no more, as if the disk were full then."""

    def work(connection: Connection) -> None:
        count = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {count + pages}")

    return work


async def test_disk_full(sqlite_url) -> None:
    """Nothing is half written, what has room is kept, and it goes on when there is room again."""
    big = [random.Random(1).randbytes(1_000_000)]
    async with open_store(sqlite_url) as store:
        await writer_of(store).write(leave_pages(20), durable=True)
        small, bad, other = messages(), messages(), messages()

        outcomes = await together(
            store,
            store.quarantine.keep(small, SUMMARY, [CONTENT.message]),
            store.quarantine.keep(bad, SUMMARY, big),
            store.quarantine.keep(other, SUMMARY, [CONTENT.message]),
        )

        assert [None, None] == [outcomes[0], outcomes[2]]
        assert isinstance(outcomes[1], StoreFull)
        assert "the store is full: database or disk is full" == str(outcomes[1])
        assert {small[0].transaction_id, other[0].transaction_id} == names(sqlite_url)
        await writer_of(store).write(leave_pages(10_000), durable=True)
        await store.quarantine.keep(bad, SUMMARY, big)
        assert big == [(await store.quarantine.content(bad[0].id)).message]


async def test_disk_full_for_an_act(sqlite_url) -> None:
    """What cannot be recorded is not done."""
    async with open_store(sqlite_url) as store:
        [message] = messages()
        await store.quarantine.keep([message], SUMMARY, [CONTENT.message])
        await writer_of(store).write(leave_pages(0), durable=True)
        why = "x" * 1_000_000

        with pytest.raises(StoreFull):
            await store.quarantine.move(
                message.id,
                expected=QuarantineState.QUARANTINED,
                to=QuarantineState.DISCARDED,
                act=act(why=why),
            )

        assert message == await store.quarantine.get(message.id)
    with connected(sqlite_url) as connection:
        assert 0 == connection.execute(select(func.count()).select_from(audit_log)).scalar_one()


async def test_store_locked_by_another_process(sqlite_url, monkeypatch) -> None:
    """All who wait hear it at once when the time is up; look-ups go on; it works again when the lock is gone."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    async with open_store(sqlite_url) as store:
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as another:
            another.execute("BEGIN IMMEDIATE")

            outcomes = await asyncio.gather(
                *(store.quarantine.keep(messages(), SUMMARY, [CONTENT.message]) for _ in range(20)),
                return_exceptions=True,
            )
            assert {"the store cannot be used: database is locked"} == {str(outcome) for outcome in outcomes}
            assert all(isinstance(outcome, LineFailed) for outcome in outcomes)
            await store.address_book.facts(["a@x.example"], customer=None, now=NOW)
            another.execute("ROLLBACK")

        assert set() == names(sqlite_url)
        await store.quarantine.keep(messages(), SUMMARY, [CONTENT.message])


async def test_writer_waits_for_another_process(sqlite_url) -> None:
    async with open_store(sqlite_url) as store:
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as another:
            another.execute("BEGIN IMMEDIATE")
            busy = threading.Event()
            event.listen(writer_of(store)._engine, "checkout", lambda *_: busy.set())
            keeping = asyncio.ensure_future(store.quarantine.keep(messages(), SUMMARY, [CONTENT.message]))
            assert await asyncio.to_thread(busy.wait, 20)
            another.execute("COMMIT")

        await keeping

    assert 1 == len(names(sqlite_url))
