"""A message that nobody is to be kept from, whole in memory: body and final dot go to the smarthost together.

The fault table holds for it as for one that is kept from somebody, but that nothing is left in quarantine.
"""

import asyncio
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from tests.support.eventually import eventually
from tests.support.faults import ALICE, AT_THE_END, BIG_WIRE, BOB, STRANGER, WIRE, Fault, benched, locked, meet
from tests.support.guard import guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost, hold
from tests.support.transcript import greeted

IN_MEMORY = {"spool_above": 2 * len(BIG_WIRE), "max_buffered_bytes": 4 * len(BIG_WIRE)}


def without_stranger(fault: Fault) -> Fault:
    ledger = {who: said for who, said in fault.expected.ledger.items() if who != STRANGER}
    expected = replace(fault.expected, quarantined=(), ledger=ledger)
    return replace(fault, expected=expected, recipients=(ALICE, BOB))


@pytest.mark.parametrize("fault", [without_stranger(fault) for fault in AT_THE_END], ids=str)
async def test_fault(sqlite_url, fault) -> None:
    receive_buffer = 4096 if fault.wire is BIG_WIRE else None
    async with ScriptedSmarthost(receive_buffer=receive_buffer) as smarthost:
        async with benched(sqlite_url, smarthost.port, smtp=IN_MEMORY) as bench:
            await meet(fault, bench, smarthost)


async def test_application_that_is_gone_before_the_dot(sqlite_url) -> None:
    """The smarthost has not said 354 yet: it gets no message."""
    go_ahead = asyncio.Event()
    async with ScriptedSmarthost() as smarthost, benched(sqlite_url, smarthost.port) as bench:
        smarthost.data = hold(go_ahead)
        async with greeted(bench.port) as client:
            await client.envelope(ALICE, BOB)
            await client.ask("DATA", "354 *")
            await client.send_octets(WIRE + b".\r\n")
            await smarthost.wait_for_command("DATA")
        go_ahead.set()
        await eventually(lambda: len(bench.log()) == 1)

        assert bench.log()[0]["outcome"] == "client-gone"
        assert smarthost.messages == []


async def test_guard_that_has_to_stop_while_it_writes_the_ledger(sqlite_url) -> None:
    """The application heard nothing and tries again: so says the one line of the log."""
    async with ScriptedSmarthost() as smarthost, AsyncExitStack() as outer:
        lines = outer.enter_context(capture_logs())

        async def unlock_when_it_has_stopped(lock: ExitStack) -> None:
            with lock:
                await eventually(lambda: any(line["event"] == "transaction-cut-off" for line in lines))

        async with guarding(sqlite_url, smarthost.port, smtp={"shutdown_timeout": 0.2}) as guard:
            await verify(guard.desks, ALICE)
            client = await outer.enter_async_context(greeted(guard.port))
            await client.envelope(ALICE)
            await client.ask("DATA", "354 *")
            lock = ExitStack()
            lock.enter_context(locked(sqlite_url))
            unlocking = asyncio.create_task(unlock_when_it_has_stopped(lock))
            await client.send("Subject: x", ".")
            await smarthost.wait_for_message()
        await unlocking
        assert await client.at_end()

    (line,) = [line for line in lines if line["event"].startswith("transaction-")]
    assert (line["outcome"], line["recipients"][0]["recipient"], "reply" in line) == ("cut-off", ALICE, False)
