"""Opening a store: what is wrong with it is said in one line, before anything is done."""

import stat
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from smtpguard.errors import SchemaMismatch, StoreUnavailable
from smtpguard.storage import current_revision, head_revision, is_embedded, open_store, sqlite, upgrade
from tests.integration.storage.builders import CONTENT, NOW, SUMMARY, connected, messages
from tests.support.eventually import eventually
from tests.support.process import run

OPEN_AND_TELL = """
import asyncio, sys
from smtpguard.storage import open_store
async def main():
    async with open_store(sys.argv[1]):
        print([name for name in ("alembic", "psycopg", "sqlalchemy.dialects.postgresql") if name in sys.modules])
asyncio.run(main())
"""


async def opened(url: str) -> None:
    async with open_store(url):
        pass


def set_revision(url: str, revision: str) -> None:
    with connected(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("smtpguard")}


async def test_nothing_is_left_behind(store_url) -> None:
    """No thread, no connection: the tests fail on a connection that is not closed."""
    async with open_store(store_url) as store:
        await store.quarantine.keep(messages(), SUMMARY, [CONTENT.message])
        await store.quarantine.list(limit=0, after=None, states=[])
        assert {"smtpguard-writer"} <= threads()

    assert set() == threads()


async def test_nothing_is_left_behind_by_a_failure(store_url) -> None:
    with pytest.raises(LookupError):
        async with open_store(store_url):
            raise LookupError

    assert set() == threads()


async def test_empty_store(tmp_path, postgres_server) -> None:
    for url in (f"sqlite:///{tmp_path / 'new.db'}", postgres_server.new_database()):
        assert current_revision(url) is None
        with pytest.raises(SchemaMismatch, match=r"^the store is empty, .* run `smtpguard db upgrade`$"):
            await opened(url)

    assert [] == list(tmp_path.iterdir())  # to look makes no file


async def test_older_store(store_url) -> None:
    with connected(store_url) as connection:
        connection.execute(text("DELETE FROM alembic_version"))

    with pytest.raises(SchemaMismatch, match=r"run `smtpguard db upgrade`$"):
        await opened(store_url)


async def test_newer_store(store_url) -> None:
    """It is left alone, by an upgrade too."""
    set_revision(store_url, "9999")

    says = rf"^the schema of the store is 9999, which a newer smtpguard has made: .* up to {head_revision()}$"
    with pytest.raises(SchemaMismatch, match=says):
        await opened(store_url)
    with pytest.raises(SchemaMismatch, match=says):
        upgrade(store_url)
    assert "9999" == current_revision(store_url)


async def test_revisions(store_url) -> None:
    assert head_revision() == current_revision(store_url)
    upgrade(store_url)
    assert head_revision() == current_revision(store_url)


def test_embedded() -> None:
    assert is_embedded("sqlite:///store.db")
    assert not is_embedded("postgresql://db.example/guard")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///",
        "sqlite:///:memory:",
        "mysql://localhost/guard",
        "store.db",
        "postgresql://user:s3cret%zz@localhost/guard",
        "postgresql://localhost/guard?no_such_option=s3cret",
    ],
)
async def test_url_that_names_no_store(url) -> None:
    """And no word of the password."""
    with pytest.raises(StoreUnavailable, match=r"^the URL of the store ") as raised:
        await opened(url)

    assert "s3cret" not in str(raised.value)
    with pytest.raises(StoreUnavailable):
        upgrade(url)
    with pytest.raises(StoreUnavailable):
        current_revision(url)


async def test_file_that_is_no_database(tmp_path) -> None:
    file = tmp_path / "store.db"
    file.write_text("Dear Sir or Madam,\n" * 1000)
    url = f"sqlite:///{file}"

    for act in (upgrade, current_revision):
        with pytest.raises(StoreUnavailable, match=rf"^{file} cannot be used: file is not a database$"):
            act(url)
    with pytest.raises(StoreUnavailable, match=rf"^{file} cannot be used: file is not a database$"):
        await opened(url)


def test_directory_that_is_not_there(tmp_path) -> None:
    with pytest.raises(StoreUnavailable, match=r"/nowhere/store\.db cannot be reached: No such file or directory$"):
        upgrade(f"sqlite:///{tmp_path}/nowhere/store.db")


def test_directory_where_the_file_should_be(tmp_path) -> None:
    with pytest.raises(StoreUnavailable, match=rf"^{tmp_path} cannot be (opened|used): unable to open database file$"):
        upgrade(f"sqlite:///{tmp_path}")


def test_path_with_odd_characters(tmp_path) -> None:
    """It is a path, not a URL's: a question mark is a question mark."""
    file = tmp_path / "a b?c#d%20e\u20ac.db"

    upgrade(f"sqlite:///{file}")

    assert head_revision() == current_revision(f"sqlite:///{file}")
    assert file.is_file()


def test_relative_path(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    upgrade("sqlite:///store.db")

    assert (tmp_path / "store.db").is_file()


def test_store_is_for_the_eyes_of_its_owner(tmp_path) -> None:
    """There is mail in it."""
    file = tmp_path / "store.db"

    upgrade(f"sqlite:///{file}")

    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


async def test_files_beside_the_store_too(sqlite_url) -> None:
    async with open_store(sqlite_url) as store:
        await store.quarantine.keep(messages(), SUMMARY, [CONTENT.message])
        path = Path(sqlite_url.removeprefix("sqlite:///"))
        beside = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]

        assert [0o600, 0o600] == [stat.S_IMODE(file.stat().st_mode) for file in beside]


async def test_sqlite_that_is_not_durable(sqlite_url, monkeypatch) -> None:
    """A file system may not have what write-ahead logging needs; SQLite then goes on without it."""
    monkeypatch.setattr(sqlite, "_PRAGMAS", (*sqlite._PRAGMAS[1:], "PRAGMA journal_mode = DELETE"))

    with pytest.raises(StoreUnavailable, match=r"store\.db is not durable: journal_mode is delete, synchronous is 2$"):
        await opened(sqlite_url)
    assert set() == threads()


async def test_postgres_that_is_not_durable(own_postgres_server) -> None:
    url = own_postgres_server.new_store()
    own_postgres_server.execute("ALTER SYSTEM SET fsync = off")
    own_postgres_server.execute("SELECT pg_reload_conf()")
    await eventually(lambda: own_postgres_server.execute("SHOW fsync") == [("off",)])

    with pytest.raises(StoreUnavailable, match=r"^the PostgreSQL server is not durable: .* fsync is off$"):
        await opened(url)


@pytest.mark.parametrize(("default", "kept"), [("off", "on"), ("remote_apply", "remote_apply"), ("local", "local")])
async def test_servers_default_may_be_more_durable_but_not_less(postgres_server, default, kept) -> None:
    url = postgres_server.new_store()
    database = url.partition("?")[0].rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {database} SET synchronous_commit = {default}")

    async with open_store(url) as store:
        commit = await store.quarantine._writer.write(
            lambda connection: connection.execute(text("SHOW synchronous_commit")).scalar_one(), durable=True
        )

    assert kept == commit


async def test_servers_defaults_do_not_matter(postgres_server) -> None:
    """Whatever the administrator has set for others: the chain of acts and the times are what they must be."""
    url = postgres_server.new_store()
    database = url.partition("?")[0].rpartition("/")[2]
    for setting in ("timezone = 'Asia/Kathmandu'", "default_transaction_isolation = 'serializable'", "jit = on"):
        postgres_server.execute(f"ALTER DATABASE {database} SET {setting}")

    async with open_store(url) as store:
        isolation = await store.quarantine._writer.write(
            lambda connection: connection.execute(text("SHOW transaction_isolation")).scalar_one(), durable=True
        )
        [message] = messages()
        await store.quarantine.keep([message], SUMMARY, [CONTENT.message])

        assert "read committed" == isolation
        assert message == await store.quarantine.get(message.id)


async def test_no_such_database(postgres_server) -> None:
    url = postgres_server.url("nowhere")

    with pytest.raises(
        StoreUnavailable, match=r'^the store cannot be used: .*database "nowhere" does not exist'
    ) as raised:
        await opened(url)

    assert "\n" not in str(raised.value)


async def test_nobody_listens() -> None:
    with pytest.raises(StoreUnavailable, match=r"^the store cannot be used: connection failed") as raised:
        await opened("postgresql://user:s3cret@127.0.0.1:1/guard")

    assert "s3cret" not in str(raised.value)


async def test_first_of_several_hosts_that_answers(postgres_server) -> None:
    """Fail-over is libpq's: the URL may name several hosts."""
    url = postgres_server.new_store()
    hosts = url.replace("?host=", "?host=/nowhere,")

    async with open_store(hosts) as store:
        await store.quarantine.keep(messages(), SUMMARY, [CONTENT.message])


async def test_what_only_others_need_is_not_loaded(sqlite_url) -> None:
    """A guard on SQLite that has nothing to upgrade loads neither Alembic nor what is for PostgreSQL."""
    code, out, err = await run(sys.executable, "-c", OPEN_AND_TELL, sqlite_url)

    assert (code, out, err) == (0, "[]\n", "")


async def test_health_of_a_store(store_url) -> None:
    """It is that of this version, and is read each time."""
    async with open_store(store_url) as store:
        await store.health.check(NOW)
        set_revision(store_url, "0001")
        with pytest.raises(SchemaMismatch, match="the schema of the store is 0001"):
            await store.health.check(NOW)
        set_revision(store_url, head_revision())
        await store.health.check(NOW)
