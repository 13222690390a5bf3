"""Fixtures that every folder needs: an environment without settings, and stores on both engines."""

import gc
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from smtpguard.settings import ENVIRONMENT_PREFIX
from smtpguard.storage import Store, open_store
from tests.support.databases import PostgresServer, new_sqlite_store, new_sqlite_template, postgres_server

# On two busy cores an example may take its time; what hangs is ended by pytest-timeout.
hypothesis.settings.register_profile("suite", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("suite")

for variable in [name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX)]:
    del os.environ[variable]  # before a test, and before a process that a test starts, can read it


gc.disable()  # until the tests are collected: what they are made of is no garbage


def pytest_collection_finish() -> None:
    """Keep what thousands of collected tests are made of out of each collection of garbage from here on."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Leave the logging of the process as it was, whatever a test configures: the next one looks for its own lines."""
    root, mail = logging.getLogger(), logging.getLogger("mail.log")
    before = (list(root.handlers), root.level, mail.level, mail.propagate)
    yield
    root.handlers, mail.propagate = before[0], before[3]
    root.setLevel(before[1])
    mail.setLevel(before[2])
    structlog.reset_defaults()


@pytest.fixture(scope="session", name="postgres_server")
def _postgres_server() -> Iterator[PostgresServer]:
    """The server of this process. Do not stop it: other tests use it too."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A server for this test alone, to stop, kill and start."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory) -> Path:
    """A migrated SQLite file, to copy from."""
    return new_sqlite_template(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture
def sqlite_url(sqlite_template, tmp_path) -> str:
    """A migrated store of this test's own, in a SQLite file."""
    return new_sqlite_store(tmp_path, sqlite_template)


@pytest.fixture
def postgres_url(postgres_server) -> str:
    """A migrated store of this test's own, on PostgreSQL."""
    return postgres_server.new_store()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request) -> str:
    """A migrated store of this test's own; the test runs on each engine."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture
async def store(store_url) -> AsyncIterator[Store]:
    """An open store; the test runs on each engine."""
    async with open_store(store_url) as store:
        yield store


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where nothing may be skipped (NO_SKIP), a test that is fails with the reason."""
    del item
    report = yield
    if os.environ.get("NO_SKIP") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr} (and NO_SKIP is set)"
    return report
