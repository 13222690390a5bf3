"""What the process holds in memory stays within bounds, whatever a thousand sessions do with it."""

import asyncio
import base64
import random
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.soak.history import read_copies
from tests.soak.nemesis import Sink
from tests.support.faults import ALICE, STRANGER
from tests.support.process import GuardProcess, free_port, guard_process
from tests.support.transcript import Transcript, connected, greeted

pytestmark = pytest.mark.timeout(300)  # some twenty seconds; a busy machine takes its time

MIB = 2**20
LIMIT_MIB = 150
IDLE, BUSY = 1000, 100
OPENED_AT_ONCE = 50
KEPT_ALSO = 20
"""How many of the big messages are for a stranger, too."""
MESSAGE_OCTETS = 10_000_000
BLOCK_OCTETS = 65_536
ENDLESS = b"x" * MIB


@pytest.fixture
def many_files() -> Iterator[None]:
    """Each session is a file at both ends; the processes that a test starts have the limit of the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def sink(tmp_path) -> AsyncIterator[Sink]:
    """A smarthost that holds no message in memory itself."""
    sink = Sink(free_port(), tmp_path / "smarthost.journal")
    await sink.start()
    yield sink
    await sink.end()


async def test_memory_of_a_busy_guard(many_files, sqlite_url, sink, tmp_path, record_property) -> None:
    """A thousand idle sessions, a hundred messages of 10 MB at once, and 64 MiB without a line end."""
    limits = {"SMTPGUARD_SMTP__MAX_SESSIONS": "2000", "SMTPGUARD_SMTP__MAX_SESSIONS_PER_NETWORK": "2000"}
    async with guard_process(sqlite_url, sink.port, tmp_path, **limits) as guard, AsyncExitStack() as sessions:
        code, _, err = await guard.command("address", "verify", ALICE)
        assert code == 0, err
        for _ in range(IDLE // OPENED_AT_ONCE):
            await asyncio.gather(*(sessions.enter_async_context(greeted(guard.port)) for _ in range(OPENED_AT_ONCE)))
        with_idle = memory(guard)
        await send_big_messages(guard)
        with_busy = memory(guard)
        await send_without_line_end(guard)
        with_endless = memory(guard)

        record_property("MiB", {"idle": with_idle, "busy": with_busy, "endless": with_endless})
        print(f"resident and peak, in MiB: idle {with_idle}, busy {with_busy}, endless {with_endless}")
        assert max(with_idle[0], with_busy[0], with_endless[0]) < LIMIT_MIB
        assert len(await guard.quarantine()) == KEPT_ALSO
    assert len(list(read_copies(sink.journal))) == BUSY
    Path(sqlite_url.removeprefix("sqlite:///")).unlink()  # pytest would keep it


def memory(guard: GuardProcess) -> tuple[int, int]:
    """Resident now, and at most so far, in MiB."""
    status = Path(f"/proc/{guard.process.pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in status)
    return tuple(int(fields[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM"))


async def send_big_messages(guard: GuardProcess) -> None:
    """All are there but for their final dots before the first of these goes out."""
    all_but_the_dot = asyncio.Barrier(BUSY)
    attachment = base64.encodebytes(random.Random(1).randbytes(MESSAGE_OCTETS * 3 // 4)).replace(b"\n", b"\r\n")

    async def send(number: int) -> None:
        async with greeted(guard.port) as client:
            await client.envelope(*([ALICE, STRANGER] if number < KEPT_ALSO else [ALICE]))
            await client.ask("DATA", "354 *")
            await client.send("Subject: big", "")
            for start in range(0, len(attachment), BLOCK_OCTETS):
                await client.send_octets(attachment[start : start + BLOCK_OCTETS])
            await all_but_the_dot.wait()
            await client.send(".")
            async with asyncio.timeout(90):
                said = await client.reader.readuntil(b"\r\n")
            assert said.startswith(b"250 2.0.0 "), said

    await asyncio.gather(*(send(number) for number in range(BUSY)))


async def send_without_line_end(guard: GuardProcess) -> None:
    """As a message and as a command."""
    async with greeted(guard.port) as client:
        await client.envelope(STRANGER)
        await client.ask("DATA", "354 *")
        for _ in range(64):
            await client.send_octets(ENDLESS)
        await client.send("", ".")
        await client.expect("552 5.3.4 *")
    async with connected(guard.port) as client:
        await client.expect("220 *")
        await send_as_far_as_it_goes(client)
        assert (await client.reply()).startswith(("500 ", "421 "))


async def send_as_far_as_it_goes(client: Transcript) -> None:
    """The guard may hang up before the end."""
    for _ in range(64):
        try:
            await client.send_octets(ENDLESS)
        except ConnectionError:
            return
    await client.send("")
