"""PostgreSQL on the path of a reply: what arrives together is one statement, and does not wait for the disk."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import text

from smtpguard.errors import StoreUnavailable
from smtpguard.storage import Store, open_store, postgres
from smtpguard.storage.postgres_channel import Channel
from smtpguard.storage.postgres_line import PostgresLine
from tests.integration.storage.builders import NOW, SECOND, connected, entry, held_up, somebody_waits, writer_of
from tests.support.eventually import eventually

KEY = "u@example.org"


@pytest.fixture
async def store(postgres_url) -> AsyncIterator[Store]:
    async with open_store(postgres_url) as store:
        yield store


def transactions_of_the_ledger(url: str) -> int:
    with connected(url) as connection:
        return connection.execute(text("SELECT count(DISTINCT xmin::text) FROM ledger")).scalar_one()


async def together(store: Store, *recordings) -> list:
    """Hand all of these in while the line is busy, and return their outcomes."""
    line = store.ledger._hot_path._recordings
    async with held_up(line, store.ledger.record([entry()])):
        tasks = [asyncio.ensure_future(recording) for recording in recordings]
        while len(line._waiting) < len(tasks):
            await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def session_of(line: PostgresLine) -> Iterator[psycopg.Connection]:
    """The connection of a line that rests, for statements of the test's own."""
    connection = line._channel._connection
    connection.pgconn.exit_pipeline_mode()
    yield connection
    connection.pgconn.enter_pipeline_mode()


async def test_recordings_that_arrive_together_are_one_transaction(store, postgres_url) -> None:
    entries = [entry(KEY, customer=customer) for customer in ("A", None, "B", "A")]

    await together(store, *(store.ledger.record([one]) for one in entries))

    assert 2 == transactions_of_the_ledger(postgres_url)  # that which kept the line busy, and one for all others
    rows = [row.entry for row in await store.ledger.list(limit=4, after=None)]
    assert entries[::-1] == rows
    assert ["A", "B"] == [binding.customer for binding in (await store.address_book.record(KEY)).bindings]


async def test_message_costs_three_exchanges_and_no_thread(store, monkeypatch) -> None:
    """Two look-ups and a commit, and with customers, whom it binds, no more; ten at once cost less than ten of them."""
    threads, exchanges, exchange = [], [], Channel.exchange
    monkeypatch.setattr(Channel, "exchange", lambda *given: (exchanges.append(1), exchange(*given)))

    async def message() -> None:
        for customer in (None, "A"):
            await store.address_book.facts([KEY, "v@example.org"], customer=customer, now=NOW)
        await store.ledger.record([entry(KEY, customer="A"), entry("v@example.org", customer="B")])

    await message()
    monkeypatch.setattr(threading.Thread, "start", threads.append)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *given: threads.append(given))
    exchanges.clear()
    await message()
    assert 3 == len(exchanges)

    exchanges.clear()
    await asyncio.gather(*(message() for _ in range(10)))
    assert 3 == len(exchanges)
    assert [] == threads


async def test_bad_recording_fails_alone(store) -> None:
    good = [entry(), entry()]
    bad = [entry(customer=""), entry(transaction_id="\0")]

    outcomes = await together(store, *(store.ledger.record([one]) for one in (good[0], *bad, good[1])))

    assert [None, None] == [outcomes[0], outcomes[3]]
    assert all(isinstance(outcome, psycopg.Error) for outcome in outcomes[1:3])
    found = {row.entry.transaction_id for row in await store.ledger.list(limit=0, after=None)}
    assert {one.transaction_id for one in good} < found
    assert 3 == len(found)


async def test_traffic_does_not_wait_for_the_servers_disk(store, postgres_url) -> None:
    """And takes nothing from the writer, who does."""
    database = postgres.PostgresDatabase(postgres_url)
    shown = []
    for manner in (postgres.RECORD, postgres.WORK):
        with database.connect(manner) as connection:
            shown.append(connection.execute("SHOW synchronous_commit").fetchone()[0])
        connection.close()
    await store.ledger.record([entry()])

    with session_of(store.ledger._hot_path._recordings) as ledger:
        assert ("off",) == ledger.execute("SHOW synchronous_commit").fetchone()
    assert ["off", "on"] == shown
    assert "on" == await writer_of(store).write(
        lambda connection: connection.execute(text("SHOW synchronous_commit")).scalar_one(), durable=True
    )


async def test_binding_locked_by_somebody_fails_its_recording_only(store, postgres_url, monkeypatch) -> None:
    impatient = postgres.RECORD.settings | {"lock_timeout": "200"}
    monkeypatch.setattr(postgres, "RECORD", postgres.Manner(impatient, answer_seconds=25))
    await store.address_book.bind([KEY], customer="A", now=NOW)
    store.ledger._hot_path._recordings._channel.disconnect()
    with connected(postgres_url) as another:
        another.exec_driver_sql("SELECT 1 FROM bindings FOR UPDATE")

        held, good = await together(
            store, store.address_book.bind([KEY], customer="A", now=NOW + SECOND), store.ledger.record([entry()])
        )

    assert good is None
    assert isinstance(held, StoreUnavailable)
    assert "lock timeout" in str(held)


async def test_deadlock_is_survived(store, postgres_url) -> None:
    """Two keys, bound in the other order by somebody else: the server ends one, which is done again."""
    keys = ["a@example.org", "b@example.org"]
    await store.address_book.bind(keys, customer="A", now=NOW)
    with psycopg.connect(postgres_url) as another:
        another.execute("SET deadlock_timeout = '1min'")
        another.execute(
            "SELECT 1 FROM bindings JOIN addresses ON id = address_id WHERE lookup_key = %s FOR UPDATE", keys[1:]
        )
        recording = asyncio.ensure_future(store.address_book.bind(keys, customer="A", now=NOW + SECOND))
        await eventually(lambda: somebody_waits(postgres_url))
        await asyncio.to_thread(
            another.execute,
            "SELECT 1 FROM bindings JOIN addresses ON id = address_id WHERE lookup_key = %s FOR UPDATE OF bindings",
            keys[:1],
        )
        another.rollback()

    await recording
    assert [NOW + SECOND] * 2 == [
        binding.last_seen for key in keys for binding in (await store.address_book.record(key)).bindings
    ]


async def test_connection_that_was_cut_while_idle(store, postgres_url) -> None:
    """The next one does not have to pay for it."""
    await store.ledger.record([entry()])
    with connected(postgres_url) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        connection.execute(text(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"))

    await store.ledger.record([entry()])

    assert 2 == len(await store.ledger.list(limit=0, after=None))


async def test_odd_characters_come_back_as_they_were(store) -> None:
    """Arrays are written by hand."""
    odd = [
        '"a\\"b"@x.example',
        "{}@x.example",
        "null@x.example",
        "''@x.example",
        "\u20ac@x.example",
        '"\\\\"@x.example',
    ]
    entries = [
        entry(address, customer=f'C {{"{number}\\', message_id=f"<{address}>") for number, address in enumerate(odd)
    ]

    await store.ledger.record(entries)

    rows = [row.entry for row in await store.ledger.list(limit=0, after=None)]
    assert entries[::-1] == rows
    assert [each.decision.recipient.text for each in entries[::-1]] == [each.decision.recipient.text for each in rows]
    for one in entries:
        key = one.decision.recipient.lookup_key
        facts = await store.address_book.facts([key], customer=one.customer, now=NOW)
        assert facts[key].bound_to_customer


async def test_words_that_mean_something_in_an_array(store) -> None:
    """The lookup key of an array written by hand is that which was asked about, whatever it looks like."""
    hostile = ["null", "NULL", "", "{}", "a,b", '"', "\\", '\\"', "{a", "}", " a", "a ", "\n", "\t", "''", "%s", "\x01"]
    customer = 'C {"\\,NULL'

    await store.address_book.bind(hostile, customer=customer, now=NOW)

    facts = await store.address_book.facts([*hostile, "nobody"], customer=customer, now=NOW)
    assert hostile == [key for key in facts if facts[key].bound_to_customer]
    facts = await store.address_book.facts([*hostile, "nobody"], customer="null", now=NOW)
    assert hostile == [key for key in facts if facts[key].bound_to_others]


async def test_bad_look_up_fails_alone(store) -> None:
    keys = [KEY, "\0", "\ud800", "{}"]

    outcomes = await asyncio.gather(
        *(store.address_book.facts([key], customer=None, now=NOW) for key in keys), return_exceptions=True
    )

    assert [True, False, False, True] == [isinstance(outcome, dict) for outcome in outcomes]


async def test_prepared_statements_that_are_gone_are_made_anew(store) -> None:
    """A pooler between throws them away, say: the next to ask is heard all the same."""
    hot_path = store.ledger._hot_path
    await store.address_book.facts([KEY], customer=None, now=NOW)
    await store.ledger.record([entry()])
    for line in (hot_path._look_ups, hot_path._recordings):
        with session_of(line) as connection:
            connection.execute("DEALLOCATE ALL")

    for _ in range(2):
        await asyncio.gather(
            *(store.address_book.facts([KEY], customer=None, now=NOW) for _ in range(2)),
            *(store.ledger.record([entry()]) for _ in range(2)),
            return_exceptions=True,
        )

    assert not (await store.address_book.facts([KEY], customer=None, now=NOW))[KEY].on_record
    await store.ledger.record([entry()])


async def test_schema_that_changes_meanwhile(store, postgres_url) -> None:
    """The statements of the connections are planned anew."""
    await store.address_book.facts([KEY], customer="A", now=NOW)
    await store.ledger.record([entry(KEY, customer="A")])
    with connected(postgres_url) as connection:
        for statement in (
            "ALTER TABLE addresses ADD COLUMN more text",
            "ALTER TABLE addresses ALTER COLUMN lookup_key TYPE varchar(300)",
            "ALTER TABLE ledger ADD COLUMN more text",
            "DROP INDEX ix_ledger_sampled_at",
        ):
            connection.execute(text(statement))

    assert (await store.address_book.facts([KEY], customer="A", now=NOW))[KEY].bound_to_customer
    await store.ledger.record([entry(KEY, customer="B")])
    assert (await store.address_book.facts([KEY], customer="B", now=NOW))[KEY].bound_to_customer
