"""PostgreSQL goes away, comes back, hangs, fills up: each is said within seconds, and nothing is believed written."""

import asyncio
import time
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import Connection, func, insert, select, text

from smtpguard.errors import StoreFull, StoreUnavailable
from smtpguard.storage import open_store, postgres, postgres_hot_path, writer
from smtpguard.storage.tables import message_contents
from tests.integration.storage.builders import (
    CONTENT,
    NOW,
    SUMMARY,
    act,
    connected,
    entry,
    flag,
    import_row,
    messages,
    writer_of,
)

KEY = "anna@example.org"


async def look_up(store) -> bool:
    return (await store.address_book.facts([KEY], customer=None, now=NOW))[KEY].on_record


async def everything(store) -> list:
    """One of each way to the store."""
    return await asyncio.gather(
        look_up(store),
        look_up(store),
        store.quarantine.keep(messages(), SUMMARY, [CONTENT.message]),
        store.quarantine.keep(messages(), SUMMARY, [CONTENT.message]),
        store.quarantine.list(limit=0, after=None, states=[]),
        store.ledger.record([entry(customer="A")]),
        store.ledger.record([entry()]),
        store.address_book.import_rows([import_row(KEY)], now=NOW, by="anna"),
        store.audit_log.verify(),
        return_exceptions=True,
    )


def assert_unavailable(outcomes: list) -> None:
    assert all(type(outcome) is not StoreFull and isinstance(outcome, StoreUnavailable) for outcome in outcomes), (
        outcomes
    )
    assert all("\n" not in str(outcome) for outcome in outcomes)


def hang_up_on_all(url: str) -> None:
    """End every other session of the database, as a restart or a firewall would."""
    with connected(url) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ended = connection.execute(text(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"))
        assert ended.scalars().all()


async def test_killed_and_started_again(own_postgres_server) -> None:
    async with open_store(own_postgres_server.new_store()) as store:
        assert [] == [outcome for outcome in await everything(store) if isinstance(outcome, Exception)]

        own_postgres_server.kill()
        began = time.monotonic()
        assert_unavailable(await everything(store))
        assert_unavailable(await everything(store))
        assert time.monotonic() - began < 10

        own_postgres_server.start()
        assert [] == [outcome for outcome in await everything(store) if isinstance(outcome, Exception)]
        assert 4 == await count(store)


async def count(store) -> int:
    """The messages that were kept."""
    return await writer_of(store).write(
        lambda connection: connection.execute(select(func.count()).select_from(message_contents)).scalar_one(),
        durable=False,
    )


async def test_restart_that_nobody_noticed(postgres_url) -> None:
    """Idle connections were cut; the first to ask does not have to pay for it."""
    async with open_store(postgres_url) as store:
        for _ in range(3):
            assert [] == [outcome for outcome in await everything(store) if isinstance(outcome, Exception)]
            hang_up_on_all(postgres_url)

        assert 6 == await count(store)


async def test_cut_off_in_the_middle(postgres_url) -> None:
    """The write that was under way fails or is done again; those that came with it are none the worse."""

    def cut(connection: Connection) -> None:
        if cuts:
            raise LookupError("cut once already")
        cuts.append(True)
        with connected(postgres_url) as another:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            another.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        connection.exec_driver_sql("SELECT 1")

    cuts: list[bool] = []
    async with open_store(postgres_url) as store:
        one = asyncio.ensure_future(store.quarantine.keep(messages(), SUMMARY, [CONTENT.message]))
        bad = asyncio.ensure_future(writer_of(store).write(cut, durable=True))
        two = asyncio.ensure_future(store.quarantine.keep(messages(), SUMMARY, [CONTENT.message]))

        outcomes = await asyncio.gather(one, bad, two, return_exceptions=True)

        assert isinstance(outcomes[1], StoreUnavailable | LookupError)
        assert [None, None] == [outcomes[0], outcomes[2]]
        assert 2 == await count(store)


async def test_lost_at_the_commit(postgres_url) -> None:
    """Nobody knows then whether it was written: it is neither believed nor done again."""

    def work(connection: Connection) -> None:
        runs.append(True)
        connection.execute(
            insert(message_contents), dict.fromkeys(message_contents.c.keys(), "") | {"content": b"", "size": 0}
        )
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with connected(postgres_url) as another:
            another.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    runs: list[bool] = []
    async with open_store(postgres_url) as store:
        with pytest.raises(StoreUnavailable, match="lost at the commit: whether it was written is not known"):
            await writer_of(store).write(work, durable=True)

        assert [True] == runs
        await store.quarantine.keep(messages(), SUMMARY, [CONTENT.message])


@pytest.fixture
def impatient(monkeypatch) -> None:
    """The same limits, shorter."""
    monkeypatch.setattr(postgres_hot_path, "LOOKUP_SECONDS", 1)
    monkeypatch.setattr(postgres_hot_path, "RECORD_SECONDS", 1.5)
    monkeypatch.setattr(postgres, "LOOK_UP", replace(postgres.LOOK_UP, answer_seconds=0.5))
    monkeypatch.setattr(postgres, "WORK", replace(postgres.WORK, answer_seconds=0.5))
    monkeypatch.setattr(postgres, "RECORD", replace(postgres.RECORD, answer_seconds=0.5))
    monkeypatch.setattr(postgres, "CONNECTION_DEFAULTS", postgres.CONNECTION_DEFAULTS | {"connect_timeout": 2})
    monkeypatch.setattr(writer, "WRITE_SECONDS", 1.5)


async def test_server_that_hangs(own_postgres_server, impatient) -> None:
    """It keeps its connections and answers nobody: what was asked of it fails in time and is not done later."""
    url = own_postgres_server.new_store()
    async with open_store(url) as store:
        assert not await look_up(store)
        assert 0 == await count(store)

        own_postgres_server.freeze()
        began = time.monotonic()
        assert_unavailable(await everything(store))
        assert_unavailable(await asyncio.gather(look_up(store), return_exceptions=True))
        assert time.monotonic() - began < 15
        own_postgres_server.thaw()

        assert not await look_up(store)
        await store.quarantine.keep(messages(), SUMMARY, [CONTENT.message])
        assert 1 == await count(store)


async def test_slow_look_up(postgres_url, impatient) -> None:
    """A lock on a table, a server out of breath: the look-up has an end, and the next one works."""
    async with open_store(postgres_url) as store:
        with connected(postgres_url) as another:
            another.exec_driver_sql("LOCK TABLE addresses IN ACCESS EXCLUSIVE MODE")
            assert_unavailable(await asyncio.gather(look_up(store), look_up(store), return_exceptions=True))

        assert not await look_up(store)


async def test_row_locked_by_somebody_fails_its_write_only(postgres_url, monkeypatch) -> None:
    """An import of another node may hold a row for long; mail that has nothing to do with it goes on."""
    monkeypatch.setattr(
        postgres, "WORK", replace(postgres.WORK, settings=postgres.WORK.settings | {"lock_timeout": "200"})
    )
    async with open_store(postgres_url) as store:
        await store.address_book.import_rows([import_row(KEY)], now=NOW, by="anna")
        with connected(postgres_url) as another:
            another.exec_driver_sql("SELECT 1 FROM addresses FOR UPDATE")

            kept, held, also_kept = await asyncio.gather(
                store.quarantine.keep(messages(), SUMMARY, [CONTENT.message]),
                store.address_book.flag(import_row(KEY).mailbox, flag(), act()),
                store.quarantine.keep(messages(), SUMMARY, [CONTENT.message]),
                return_exceptions=True,
            )

        assert (None, None) == (kept, also_kept)
        assert "lock timeout" in str(held)
        assert isinstance(held, StoreUnavailable)
        assert 2 == await count(store)
        assert [] == await store.audit_log.list(limit=0, after=None)


async def test_disk_of_the_server_is_full(postgres_url) -> None:
    """As the server says it; nothing is half written, and what has room is kept."""
    with connected(postgres_url) as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF NEW.size > 100 THEN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; "
            "END IF; RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER full_disk AFTER INSERT ON message_contents FOR EACH ROW EXECUTE FUNCTION full_disk()"
        )
    async with open_store(postgres_url) as store:
        small, big = await asyncio.gather(
            store.quarantine.keep(messages(), SUMMARY, [CONTENT.message]),
            store.quarantine.keep(messages(), SUMMARY, [b"x" * 101]),
            return_exceptions=True,
        )

        assert small is None
        assert isinstance(big, StoreFull)
        assert "the store is full: could not extend file: No space left on device" in str(big)
        assert 1 == await count(store)


async def test_standby_can_be_read_only(postgres_server) -> None:
    """After a fail-over that went the wrong way, say."""
    url = postgres_server.new_store()
    database = url.partition("?")[0].rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")

    async with open_store(url) as store:
        assert not await look_up(store)
        with pytest.raises(StoreUnavailable, match="read-only transaction"):
            await store.quarantine.keep(messages(), SUMMARY, [CONTENT.message])


async def test_no_privilege(postgres_server) -> None:
    """The administrator's mistake, told in a line."""
    url = postgres_server.new_store()
    database = url.partition("?")[0].rpartition("/")[2]
    postgres_server.execute("CREATE ROLE reader LOGIN")
    postgres_server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", database=database)

    async with open_store(url.replace("postgres:@", "reader@")) as store:
        assert not await look_up(store)
        with pytest.raises(StoreUnavailable, match="permission denied for table"):
            await store.quarantine.keep(messages(), SUMMARY, [CONTENT.message])


async def test_too_many_connections(postgres_server) -> None:
    url = postgres_server.new_store()
    database = url.partition("?")[0].rpartition("/")[2]
    async with open_store(url) as store:
        assert not await look_up(store)
        postgres_server.execute("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
        postgres_server.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO crowded", database=database)

    with pytest.raises(StoreUnavailable, match="too many connections"):
        async with open_store(url.replace("postgres:@", "crowded@")):
            pass


def test_time_limits_reach_the_server(postgres_url) -> None:
    database = postgres.PostgresDatabase(postgres_url)
    shown = {}
    for name, manner in {"work": postgres.WORK, "look-up": postgres.LOOK_UP, "upgrade": postgres.UPGRADE}.items():
        with database.connect(manner) as connection:
            shown[name] = [
                connection.execute(f"SHOW {setting}").fetchone()[0]
                for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
            ]
            assert "smtpguard" == connection.execute("SHOW application_name").fetchone()[0]
        connection.close()

    assert {"work": ["20s", "5s", "1min"], "look-up": ["5s", "5s", "1min"], "upgrade": ["0", "0", "1min"]} == shown


def test_url_has_the_last_word() -> None:
    database = postgres.PostgresDatabase("postgresql://db.example/guard?connect_timeout=7&application_name=mine")

    assert ("7", "mine", 15_000) == (
        database._parameters["connect_timeout"],
        database._parameters["application_name"],
        database._parameters["tcp_user_timeout"],
    )


def test_reader_cannot_write(postgres_url) -> None:
    with postgres.PostgresDatabase(postgres_url).connect(postgres.LOOK_UP) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM addresses")
        connection.rollback()
