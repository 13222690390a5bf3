"""Workers as processes, kept by the supervisor of this process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

import psutil
import pytest
from structlog.testing import capture_logs

from smtpguard.errors import SmtpguardError, StoreUnavailable
from smtpguard.settings import Settings
from smtpguard.workers import supervisor
from smtpguard.workers.shared import new_log_lock, new_rates_file
from smtpguard.workers.supervisor import SharedFiles, Workers, running_workers
from tests.support.eventually import eventually
from tests.support.guard import make_settings
from tests.support.process import free_port
from tests.support.transcript import greeted

STRANGER = "xyz123@provider.example"


def settings_of(url: str, **sections) -> Settings:
    return make_settings(url, free_port(), smtp={"workers": 2, "shutdown_timeout": 1}, **sections)


@asynccontextmanager
async def supervised(settings: Settings) -> AsyncIterator[Workers]:
    with new_log_lock() as log_lock, new_rates_file() as rates, TemporaryDirectory() as metrics:
        async with running_workers(settings, SharedFiles(log_lock.fileno(), rates.fileno(), metrics)) as workers:
            yield workers


@pytest.fixture
def logged():
    with capture_logs() as lines:
        yield lines


def of(logged, event: str) -> list[dict]:
    return [line for line in logged if line["event"] == event]


def pids(logged) -> list[int]:
    return [line["pid"] for line in of(logged, "worker-started")]


async def test_one_that_hangs_does_not_hold_up_a_reload(sqlite_url, logged, monkeypatch) -> None:
    """It is killed, and begins anew with the new settings."""
    monkeypatch.setattr(supervisor, "ANSWER_SECONDS", 0.5, raising=False)
    settings = settings_of(sqlite_url)
    async with supervised(settings) as workers:
        os.kill(pids(logged)[0], signal.SIGSTOP)
        assert await workers.reload(settings_of(sqlite_url, policy={"unverified": "reject"})) == ("smarthost",)
        await eventually(lambda: len(pids(logged)) == 3)

        os.kill(pids(logged)[1], signal.SIGSTOP)  # so that the new one serves
        async with greeted(workers.endpoints[0].port) as client:
            await client.ask("MAIL FROM:<a@b.example>", "250 *")
            await client.ask(f"RCPT TO:<{STRANGER}>", "550 5.7.1 *")
        os.kill(pids(logged)[1], signal.SIGCONT)

    assert [line["how"] for line in of(logged, "worker-died")] == ["it did not answer"]


async def test_one_that_hangs_is_killed_at_the_end(sqlite_url, logged, monkeypatch) -> None:
    monkeypatch.setattr(supervisor, "KILL_AFTER_SECONDS", 0.1)
    async with supervised(settings_of(sqlite_url)):
        os.kill(pids(logged)[1], signal.SIGSTOP)

    assert [psutil.pid_exists(pid) for pid in pids(logged)] == [False, False]


async def test_one_that_hangs_at_its_start_is_killed(sqlite_url, logged, monkeypatch) -> None:
    """The store does not answer it, or the machine is out of breath."""
    async with supervised(settings_of(sqlite_url)):
        monkeypatch.setattr(supervisor, "BEGIN_SECONDS", 0.05, raising=False)
        os.kill(pids(logged)[0], signal.SIGKILL)
        await eventually(lambda: len(of(logged, "worker-died")) >= 2)
        monkeypatch.setattr(supervisor, "BEGIN_SECONDS", 60)
        await eventually(lambda: len(pids(logged)) == 3)

    assert of(logged, "worker-died")[1]["how"] == "it did not begin within 0.05 s"


async def test_deaths_leave_nothing_open(sqlite_url, logged) -> None:
    """Nor does a signal without a name confuse who counts them."""
    me = psutil.Process()
    async with supervised(settings_of(sqlite_url)):
        before = me.num_fds()
        for number, mark in enumerate((signal.SIGKILL, signal.SIGRTMIN + 5), start=3):
            os.kill(pids(logged)[-1], mark)
            await eventually(lambda number=number: len(pids(logged)) == number)

        assert me.num_fds() == before

    died = of(logged, "worker-died")
    assert [line["how"] for line in died] == ["killed by SIGKILL", f"killed by signal {signal.SIGRTMIN + 5}"]
    assert [line["pause"] for line in died] == [0, 0.5]


async def test_nobody_is_started_behind_the_end(sqlite_url, logged, monkeypatch) -> None:
    """A worker waits for its next life when all are told to end."""
    monkeypatch.setattr(supervisor, "pause_after", lambda _: 1000.0)
    started = []
    start = Workers._start
    async with supervised(settings_of(sqlite_url)) as workers:
        os.kill(pids(logged)[1], signal.SIGKILL)
        await eventually(lambda: of(logged, "worker-died") != [])
        monkeypatch.setattr(Workers, "_start", lambda *given: (started.append(given), start(*given))[1])
        assert await workers.is_alive()

    assert started == []


async def test_store_that_cannot_be_had_is_said_by_the_worker(tmp_path, logged) -> None:
    with pytest.raises(SmtpguardError, match=r"guard\.db cannot be reached: No such file or directory") as raised:
        async with supervised(settings_of(f"sqlite:///{tmp_path}/none/guard.db")):
            pass

    assert not isinstance(raised.value, StoreUnavailable)  # as the channel has it: a message
    assert pids(logged) == []


async def test_error_of_the_supervisor_ends_the_workers_first(sqlite_url, logged) -> None:
    """It waits for what they finish, whatever happened to itself."""

    async def fail() -> None:
        raise RuntimeError("a defect")

    async def serve() -> None:
        async with supervised(settings_of(sqlite_url)) as workers:
            workers._spawn(fail())
            await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="a defect"):
        await serve()

    assert [psutil.pid_exists(pid) for pid in pids(logged)] == [False, False]
