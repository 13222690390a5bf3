"""The fault table against the installed command: one process meets all of it."""

from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from smtpguard.app import open_desks
from tests.support.databases import new_sqlite_store
from tests.support.eventually import eventually
from tests.support.faults import (
    ALICE,
    BEFORE_THE_DOT_GOES_OUT,
    BIG_WIRE,
    BOB,
    FAULTS,
    Bench,
    Fault,
    meet,
    meet_before_the_dot,
    meet_nobody,
    send_good_message,
)
from tests.support.guard import make_settings, verify
from tests.support.process import GuardProcess, free_port, guard_process
from tests.support.scripted_smarthost import scripted_at

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES_OF_THE_STORE = 6
"""What the store may open as it is used: file, write-ahead log and shared memory of a connection."""
SECONDS = "1"
"""What the guard waits for the smarthost at each step."""
TIMEOUTS = ("CONNECT", "COMMAND", "DATA", "BLOCK", "REPLY")


@pytest.fixture(scope="module")
def smarthost_port() -> int:
    """Where the guard looks for the smarthost; nobody listens there between two tests."""
    return free_port()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(sqlite_template, smarthost_port, tmp_path_factory) -> AsyncIterator[Bench]:
    """The guard that all tests of this module share, and the desks of an operator on its store."""
    directory = tmp_path_factory.mktemp("guard")
    url = new_sqlite_store(directory, sqlite_template)
    hasty = {f"SMTPGUARD_SMARTHOST__{name}_TIMEOUT": SECONDS for name in TIMEOUTS}
    async with (
        guard_process(url, smarthost_port, directory, **hasty) as guard,
        open_desks(make_settings(url, smarthost_port)) as desks,
    ):
        await verify(desks, ALICE, BOB)
        process = psutil.Process(guard.process.pid)
        before = process.num_fds()
        yield Bench(guard.port, url, desks, lambda: guard.events("transaction-ended"))
        await eventually(lambda: process.num_fds() <= before + FILES_OF_THE_STORE)
        assert await guard.end() == 0
    assert failures_of(guard) == []


def failures_of(guard: GuardProcess) -> list[dict[str, Any]]:
    """What the guard logged as an error of its own, and what is no log line at all: a traceback."""
    lines = guard.log.read_text().splitlines()
    return [line for line in lines if not line.startswith("{") or '"level": "error"' in line]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_fault(bench, smarthost_port, fault: Fault) -> None:
    async with scripted_at(smarthost_port, receive_buffer=4096 if fault.wire is BIG_WIRE else None) as smarthost:
        await meet(fault, bench, smarthost)


@pytest.mark.parametrize("name", BEFORE_THE_DOT_GOES_OUT)
async def test_fault_before_the_dot(bench, smarthost_port, name: str) -> None:
    async with scripted_at(smarthost_port) as smarthost:
        await meet_before_the_dot(*BEFORE_THE_DOT_GOES_OUT[name], bench, smarthost)


async def test_smarthost_down_and_up(bench, smarthost_port) -> None:
    """Whether it was down at the start or went away later; the guard was started before there was a smarthost."""
    for _ in range(2):
        await meet_nobody(bench)
        async with scripted_at(smarthost_port) as smarthost:
            await send_good_message(bench, smarthost)
