"""The application goes away at every byte around the end of data: all of its message is there, or nothing."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from smtpguard.domain.quarantined import QuarantineState
from tests.support.eventually import eventually
from tests.support.faults import ALICE, BOB, STRANGER, WIRE, Bench, benched, locked, send_good_message
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import Transcript, greeted

pytestmark = pytest.mark.usefixtures("nothing_outlives")

BDAT = b"BDAT %d LAST\r\n" % len(WIRE)
BEHIND = b"NOOP\r\n"


@dataclass(frozen=True)
class Ending:
    """A message and what comes behind it. It is whole with ``whole`` octets; ``cuts`` are where it is cut off."""

    octets: bytes
    whole: int
    cuts: Sequence[int]


BY_DATA = Ending(WIRE + b".\r\n" + BEHIND, len(WIRE) + 3, range(len(WIRE) - 3, len(WIRE) + 3 + len(BEHIND) + 1))
BY_BDAT = Ending(
    BDAT + WIRE + BEHIND,
    len(BDAT + WIRE),
    [*range(1, len(BDAT) + 2), *range(len(BDAT + WIRE) - 3, len(BDAT + WIRE + BEHIND) + 1)],
)
RELAYED, KEPT, MIXED = [ALICE, BOB], [STRANGER], [ALICE, STRANGER]


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def bench(sqlite_url, smarthost) -> AsyncIterator[Bench]:
    async with benched(sqlite_url, smarthost.port) as bench:
        yield bench


async def close(client: Transcript) -> bytes:
    client.close()
    return b""


async def reset(client: Transcript) -> bytes:
    """RST, and not the FIN of a socket that is merely closed."""
    linger_not = struct.pack("ii", 1, 0)
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
    client.reset()
    return b""


async def half_close(client: Transcript) -> bytes:
    """Send nothing more, and listen."""
    client.writer.write_eof()
    async with asyncio.timeout(20):
        return await client.reader.read()


LEAVE = pytest.mark.parametrize("leave", [close, reset, half_close], ids=lambda leave: leave.__name__)


async def traces(bench: Bench, smarthost: ScriptedSmarthost) -> tuple[int, int, int]:
    """How much there is at the smarthost, in quarantine and in the ledger."""
    kept = await bench.desks.quarantine.list(limit=0, states=frozenset(QuarantineState))
    ledger = await bench.desks.store.ledger.list(limit=0, after=None)
    return sum(len(message.recipients) for message in smarthost.messages), len(kept), len(ledger)


async def rounds_of_the_loop(bench: Bench) -> None:
    """Wait until the guard has dealt with what it was sent before: it answers somebody else after it."""
    async with greeted(bench.port) as another:
        await another.ask("NOOP", "250 *")


@LEAVE
@pytest.mark.parametrize("recipients", [RELAYED, KEPT, MIXED], ids=["relayed", "quarantined", "mixed"])
@pytest.mark.parametrize("ending", [BY_DATA, BY_BDAT], ids=["DATA", "BDAT"])
async def test_gone_at_every_byte_around_the_end(bench, smarthost, leave, recipients, ending) -> None:
    """Nobody hears a 250 for what is not there."""
    strangers = recipients.count(STRANGER)
    everything = (len(recipients) - strangers, strangers, len(recipients))
    for number, cut in enumerate(ending.cuts):
        before = await traces(bench, smarthost)
        async with greeted(bench.port) as client:
            await client.envelope(*recipients)
            if ending is BY_DATA:
                await client.ask("DATA", "354 *")
            await client.send_octets(ending.octets[:cut])
            heard = await leave(client)
            await eventually(lambda seen=number: len(bench.log()) > seen)
        line = bench.log()[number]
        after = await traces(bench, smarthost)
        left = tuple(now - then for now, then in zip(after, before, strict=True))
        if line["outcome"] == "accepted":
            assert (cut >= ending.whole, left) == (True, everything), cut
        else:
            assert line["outcome"] in {"aborted", "client-gone"}, cut
            assert (left, b"250 " in heard) == ((0, 0, 0), False), cut
    await send_good_message(bench, smarthost)


@pytest.mark.parametrize("recipients", [RELAYED, KEPT, MIXED], ids=["relayed", "quarantined", "mixed"])
async def test_half_close_behind_quit_is_answered(bench, smarthost, recipients) -> None:
    """As scripts do it: what was sent is carried out, and heard of."""
    async with greeted(bench.port) as client:
        await client.envelope(*recipients)
        await client.ask("DATA", "354 *")
        await client.send_octets(WIRE + b".\r\nQUIT\r\n")
        heard = (await half_close(client)).decode().splitlines()

    assert [line[:9] for line in heard] == ["250 2.0.0", "221 2.0.0"]
    assert (await traces(bench, smarthost))[2] == len(recipients)


@LEAVE
@pytest.mark.parametrize("recipients", [KEPT, MIXED], ids=["quarantined", "mixed"])
async def test_gone_while_the_quarantine_is_committed(bench, smarthost, leave, recipients) -> None:
    """The final dot has not gone out: what was committed is taken back."""
    async with greeted(bench.port) as client:
        await client.envelope(*recipients)
        await client.ask("DATA", "354 *")
        with locked(bench.store_url):
            await client.send_octets(WIRE + b".\r\n")
            await rounds_of_the_loop(bench)
            await leave(client)
            await rounds_of_the_loop(bench)
        await eventually(lambda: len(bench.log()) == 1)

    assert bench.log()[0]["outcome"] == "client-gone"
    assert await traces(bench, smarthost) == (0, 0, 0)
    await send_good_message(bench, smarthost)
