"""The fault table in process."""

import pytest

from tests.support.faults import (
    AT_THE_END,
    BEFORE_THE_DOT_GOES_OUT,
    BIG_WIRE,
    FAULTS,
    Fault,
    benched,
    by_bdat,
    meet,
    meet_before_the_dot,
    meet_nobody,
    send_good_message,
)
from tests.support.process import free_port
from tests.support.scripted_smarthost import ScriptedSmarthost

pytestmark = pytest.mark.usefixtures("nothing_outlives")

HASTY = dict.fromkeys(
    ("connect_timeout", "command_timeout", "data_timeout", "block_timeout", "reply_timeout"), 1.0
)  # a busy machine takes its time


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_fault(sqlite_url, fault: Fault) -> None:
    receive_buffer = 4096 if fault.wire is BIG_WIRE else None
    async with ScriptedSmarthost(receive_buffer=receive_buffer) as smarthost:
        async with benched(sqlite_url, smarthost.port, smarthost=HASTY if fault.slow else {}) as running:
            await meet(fault, running, smarthost)


@pytest.mark.parametrize("fault", AT_THE_END, ids=str)
async def test_fault_behind_bdat(sqlite_url, fault: Fault) -> None:
    receive_buffer = 4096 if fault.wire is BIG_WIRE else None
    async with ScriptedSmarthost(receive_buffer=receive_buffer) as smarthost:
        async with benched(sqlite_url, smarthost.port) as running:
            await meet(fault, running, smarthost, send=by_bdat)


@pytest.mark.parametrize("name", BEFORE_THE_DOT_GOES_OUT)
async def test_fault_before_the_dot(sqlite_url, name: str) -> None:
    async with ScriptedSmarthost() as smarthost, benched(sqlite_url, smarthost.port) as running:
        await meet_before_the_dot(*BEFORE_THE_DOT_GOES_OUT[name], running, smarthost)


async def test_smarthost_down_at_start(sqlite_url) -> None:
    """Strangers' mail is kept; the others hear 451 until the smarthost is there."""
    smarthost = ScriptedSmarthost()
    smarthost.port = free_port()
    async with benched(sqlite_url, smarthost.port) as running:
        await meet_nobody(running)
        async with smarthost:
            await send_good_message(running, smarthost)
        await meet_nobody(running)
        async with smarthost:
            await send_good_message(running, smarthost)
