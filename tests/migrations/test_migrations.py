"""The migrations: they make the tables that the code means, both ways, wherever smtpguard is installed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select
from sqlalchemy.exc import IntegrityError

from smtpguard.storage import current_revision, head_revision, upgrade
from smtpguard.storage.database import database_at
from smtpguard.storage.schema import locked, migrations
from smtpguard.storage.tables import addresses, bindings, ledger, metadata

NOW = datetime(2026, 5, 4, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path) -> str:
    """A store without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return request.getfixturevalue("postgres_server").new_database()


def tables(url: str) -> set[str]:
    with locked(database_at(url)) as connection:
        return set(inspect(connection).get_table_names())


def differences(url: str) -> list:
    """What autogenerate would still want to change."""
    with locked(database_at(url)) as connection:
        context = MigrationContext.configure(connection)
        return compare_metadata(context, metadata)


def downgrade(url: str, revision: str = "base") -> None:
    with locked(database_at(url)) as connection:
        command.downgrade(migrations(connection), revision)


def ledger_with_indexes(url: str) -> tuple[list, dict]:
    """The rows of the ledger, and its indexes."""
    with locked(database_at(url)) as connection:
        rows = connection.execute(select(ledger).order_by(ledger.c.id)).all()
        return rows, {index["name"]: index["column_names"] for index in inspect(connection).get_indexes("ledger")}


def test_tables_are_those_of_the_code(empty_url) -> None:
    upgrade(empty_url)

    assert [] == differences(empty_url)
    assert tables(empty_url) == {*metadata.tables, "alembic_version"}


def test_indexes_are_those_of_the_code(empty_url) -> None:
    """Autogenerate does not look at everything: what is unique, what is partial, and the checks."""
    upgrade(empty_url)

    with locked(database_at(empty_url)) as connection:
        found = inspect(connection)
        indexes = {index["name"]: index for table in metadata.tables for index in found.get_indexes(table)}
        checks = [check["name"] for check in found.get_check_constraints("bindings")]
        keys = [(key["constrained_columns"], key["referred_table"]) for key in found.get_foreign_keys("vouchers")]

    wanted = {index.name: index for table in metadata.tables.values() for index in table.indexes}
    assert {name: bool(index.unique) for name, index in wanted.items()} == {
        name: bool(index["unique"]) for name, index in indexes.items()
    }
    [condition] = [
        value for name, value in indexes["ix_addresses_flagged"]["dialect_options"].items() if name.endswith("_where")
    ]
    assert "flag_since IS NOT NULL" in str(condition)
    assert ["ck_bindings_customer_named"] == checks
    assert [(["address_id"], "addresses")] == keys


def test_down_to_nothing_and_up_again(empty_url) -> None:
    upgrade(empty_url)

    downgrade(empty_url)
    assert current_revision(empty_url) is None
    assert {"alembic_version"} == tables(empty_url)

    upgrade(empty_url)
    assert head_revision() == current_revision(empty_url)
    assert [] == differences(empty_url)


def test_ledger_of_the_first_version_is_kept(empty_url) -> None:
    """And can be listed by its times."""
    database = database_at(empty_url)
    database.create()
    with locked(database) as connection:
        command.upgrade(migrations(connection), "0001")
        values = {column.name: "" for column in ledger.c if column is not ledger.c.id}
        connection.execute(insert(ledger), [values | {"at": NOW} for _ in range(300)])

    upgrade(empty_url)

    with locked(database) as connection:
        assert [NOW] * 300 == list(connection.execute(select(ledger.c.at)).scalars())
        assert "ix_ledger_at" not in {index["name"] for index in inspect(connection).get_indexes("ledger")}


def test_ledger_is_the_same_whichever_way_it_went(empty_url) -> None:
    """Down to the first version, as that one made it, and up again."""
    database = database_at(empty_url)
    database.create()
    with locked(database) as connection:
        command.upgrade(migrations(connection), "0001")
    _, first_indexes = ledger_with_indexes(empty_url)
    upgrade(empty_url)
    with locked(database) as connection:
        values = {column.name: "" for column in ledger.c if column is not ledger.c.id}
        connection.execute(insert(ledger), [values | {"at": NOW} for _ in range(600)])
    rows, indexes = ledger_with_indexes(empty_url)

    downgrade(empty_url, "0001")
    assert (rows, first_indexes) == ledger_with_indexes(empty_url)

    upgrade(empty_url)
    assert (rows, indexes) == ledger_with_indexes(empty_url)
    assert 600 == len(rows)


def test_upgrades_at_the_same_time(empty_url) -> None:
    """Several nodes start at once: each finds the store upgraded, and one has done it."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(upgrade, [empty_url] * 4))

    assert [] == differences(empty_url)


def test_upgrade_that_fails_changes_nothing(empty_url, monkeypatch) -> None:
    """A migration is one transaction, on SQLite too."""
    database = database_at(empty_url)
    database.create()
    with locked(database) as connection:
        connection.exec_driver_sql("CREATE TABLE audit_log (id INTEGER)")  # in the way of the last statement

    with pytest.raises(Exception, match="audit_log"):
        upgrade(empty_url)

    assert {"audit_log"} == tables(empty_url)
    assert current_revision(empty_url) is None


def test_nothing_is_printed(empty_url, capfd) -> None:
    """Standard output belongs to the log of the guard and to the listings of the command line."""
    upgrade(empty_url)
    current_revision(empty_url)
    head_revision()

    assert ("", "") == capfd.readouterr()


def test_head_is_that_of_alembic() -> None:
    """It is read off the names of the files."""
    scripts = ScriptDirectory.from_config(migrations())

    assert head_revision() == scripts.get_current_head()
    assert all(Path(script.path).name.startswith(f"{script.revision}_") for script in scripts.walk_revisions())


def test_every_revision_goes_both_ways() -> None:
    revisions = sorted(path.name.partition("_")[0] for path in (ROOT / "migrations" / "versions").glob("*.py"))

    assert [f"{number:04}" for number in range(1, len(revisions) + 1)] == revisions
    assert revisions[-1] == head_revision()


def test_bound_customer_has_a_name(empty_url) -> None:
    upgrade(empty_url)

    with locked(database_at(empty_url)) as connection:
        connection.execute(insert(addresses), {"lookup_key": "a", "address": "a"})
        number = connection.execute(select(addresses.c.id)).scalar_one()
        bound = {"address_id": number, "customer": "", "first_seen": NOW, "last_seen": NOW}
        with pytest.raises(IntegrityError, match="customer_named"):
            connection.execute(insert(bindings), bound)
        connection.rollback()


def test_voucher_needs_an_address(empty_url) -> None:
    """A number that is given out again must not inherit somebody's vouchers."""
    upgrade(empty_url)

    with locked(database_at(empty_url)) as connection:
        bound = {"address_id": 1, "customer": "A", "first_seen": NOW, "last_seen": NOW}
        with pytest.raises(IntegrityError):
            connection.execute(insert(bindings), bound)
        connection.rollback()


def test_developers_use_alembic_itself(tmp_path) -> None:
    """``[tool.alembic]`` in pyproject.toml and the settings are all that it needs."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    environment = os.environ | {"SMTPGUARD_STORE__URL": url}
    for arguments in (("upgrade", "head"), ("check",), ("downgrade", "base"), ("upgrade", "head")):
        alembic = [sys.executable, "-m", "alembic", *arguments]
        ended = subprocess.run(alembic, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

        assert 0 == ended.returncode, ended.stderr

    assert head_revision() == current_revision(url)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built with what is installed here: nothing is fetched."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [built] = directory.glob("*.whl")
    return built


def test_wheel_has_the_migrations(wheel) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())

    versions = {
        f"smtpguard/migrations/versions/{path.name}" for path in (ROOT / "migrations" / "versions").glob("*.py")
    }
    assert versions | {"smtpguard/migrations/env.py"} <= names


def test_wheel_has_the_templates(wheel) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())

    templates = {f"smtpguard/templates/{path.name}" for path in (ROOT / "smtpguard" / "templates").iterdir()}
    assert len(templates) == 24
    assert templates <= names


def test_installed_wheel_upgrades_a_store(wheel, tmp_path) -> None:
    """Far from any checkout."""
    installed, url = tmp_path / "installed", f"sqlite:///{tmp_path / 'store.db'}"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--target",
        str(installed),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    program = f"import smtpguard.storage as s; s.upgrade({url!r}); print(s.__file__, s.head_revision())"

    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert [str(installed / "smtpguard" / "storage" / "__init__.py"), head_revision()] == ended.stdout.split()
    assert head_revision() == current_revision(url)
