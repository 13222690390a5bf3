"""The message on its way through: in memory, or in a file."""

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.domain.message import MAX_HEADER_OCTETS
from smtpguard.spool import CHUNK_OCTETS, MemoryFullError, Spool, WireMessage

HEADER = b"Subject: x\r\nX-Customer-ID: 7\r\n\r\n"


def make_spool(*, max_buffered_bytes: int = 10_000_000, spool_above: int = 100, directory: Path | None = None) -> Spool:
    return Spool(max_buffered_bytes=max_buffered_bytes, spool_above=spool_above, directory=directory)


@pytest.fixture
def open_files() -> Iterator[None]:
    """No file is left open."""
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert before == len(list(Path("/proc/self/fd").iterdir()))


async def add(message: WireMessage, octets: bytes, size: int = CHUNK_OCTETS) -> None:
    for start in range(0, len(octets), size):
        await message.append(octets[start : start + size])


async def relayed(message: WireMessage) -> bytes:
    return b"".join([bytes(chunk) async for chunk in message.chunks()])


async def test_small_message_lies_in_its_head(open_files) -> None:
    message = make_spool().message()
    await add(message, HEADER + b"body\r\n")

    assert message.head == HEADER + b"body\r\n"
    assert not message.is_cut
    assert await relayed(message) == HEADER + b"body\r\n"
    message.close()


@pytest.mark.parametrize("size", [1, 7, 99, 100_000])
@pytest.mark.parametrize("octets", [0, 1, 66, 67, 68, 99, 100, 101, 102, 103, 299, CHUNK_OCTETS * 2 + 101])
async def test_message_comes_back_whatever_its_size(octets, size, open_files) -> None:
    """Around each border: of the head, of the memory behind it, of a chunk of the file."""
    if octets > 1000 and size == 1:
        size = 1000
    spool = make_spool()
    message = spool.message()
    wire = HEADER + bytes(number % 251 for number in range(octets))
    await add(message, wire, size)

    assert len(message) == len(wire)
    assert await relayed(message) == wire
    assert b"".join(message.pieces()) == wire
    assert await relayed(message) == wire  # as often as is asked for
    assert spool.buffered_bytes <= len(HEADER) + 100 + CHUNK_OCTETS
    message.close()
    assert spool.buffered_bytes == 0


async def test_head_of_a_spooled_message_is_its_header() -> None:
    message = make_spool().message()
    await add(message, HEADER + b"body\r\n" * 1000, 10)
    message.head[0:0] = b"Received: here\r\n"

    assert message.head == b"Received: here\r\n" + HEADER
    assert message.is_cut
    assert await relayed(message) == b"Received: here\r\n" + HEADER + b"body\r\n" * 1000
    message.close()


@pytest.mark.parametrize(
    ("header", "head"),
    [
        (b"", 2),
        (b"a: " + b"b" * 5000 + b"\r\n", 5007),
        (b"a: b\r\n" * 20_000, 120_002),
        (b"a: b\r\n" * 50_000, 300_002),
    ],
)
async def test_header_stays_whole_in_the_head(header, head) -> None:
    """Also where it comes in one chunk that is bigger than a header may be."""
    message = make_spool().message()
    await add(message, header + b"\r\n", 310_000)
    await add(message, b"body\r\n\r\n" * 20_000)

    assert len(message.head) == head
    assert await relayed(message) == header + b"\r\n" + b"body\r\n\r\n" * 20_000
    message.close()


@pytest.mark.parametrize("size", [9, 1000, 1_000_000])
async def test_message_without_an_empty_line_is_cut_where_a_header_may_end(size) -> None:
    message = make_spool().message()
    await add(message, b"a" * 300_000, size)

    assert len(message.head) == MAX_HEADER_OCTETS
    assert await relayed(message) == b"a" * 300_000
    message.close()


@given(pieces=st.lists(st.sampled_from([b".", b"..", b"\r\n", b"\r\n.", b"\r", b"\n", b"aaaa"]), max_size=40))
async def test_what_is_counted_does_not_depend_on_the_file(pieces) -> None:
    wire = b"".join(pieces)
    message = make_spool(spool_above=3).message()
    for piece in pieces:
        await message.append(piece)

    assert message.size == len(wire) - (b"\r\n" + wire).count(b"\r\n.")
    assert message.has_bare_line_end == bool(set(wire.replace(b"\r\n", b"")) & set(b"\r\n"))
    assert b"".join(message.pieces()) == wire
    message.close()


async def test_memory_of_all_messages_is_one_budget() -> None:
    spool = make_spool(max_buffered_bytes=1000, spool_above=400)
    one, other = spool.message(), spool.message()
    await one.append(b"a" * 400)
    assert not spool.is_full
    await other.append(b"a" * 201)

    assert spool.is_full
    with pytest.raises(MemoryFullError):
        await one.append(b"a" * 400)
    one.close()
    assert spool.buffered_bytes == 201
    one.close()
    other.give_up("enough")
    assert (spool.buffered_bytes, other.failure) == (0, "enough")


async def test_what_is_in_the_file_is_not_in_the_budget(open_files) -> None:
    spool = make_spool(max_buffered_bytes=300_000)
    message = spool.message()
    await add(message, HEADER + b"a" * 5_000_000)

    assert spool.buffered_bytes < 200_000
    message.close()
    assert spool.buffered_bytes == 0


async def test_file_has_no_name(tmp_path) -> None:
    message = make_spool(directory=tmp_path).message()
    await add(message, HEADER + b"a" * 100_000)

    assert list(tmp_path.iterdir()) == []
    message.close()


async def test_directory_is_gone(tmp_path, open_files) -> None:
    spool = make_spool(directory=tmp_path / "gone")
    message = spool.message()
    await message.append(HEADER)

    with pytest.raises(OSError, match="No such file"):
        await message.append(b"a" * 1000)
    message.close()
    assert spool.buffered_bytes == 0


class FullDisk(Spool):
    def open_file(self):
        return Path("/dev/full").open("r+b", buffering=0)


async def test_disk_is_full(open_files) -> None:
    spool = FullDisk(max_buffered_bytes=10_000_000, spool_above=100, directory=None)
    message = spool.message()

    with pytest.raises(OSError, match="No space left"):
        await message.append(HEADER + b"a" * 1000)
    message.close()
    assert spool.buffered_bytes == 0


async def test_file_that_lost_octets_is_not_read_short(open_files) -> None:
    message = make_spool().message()
    await add(message, HEADER + b"a" * 300_000)
    os.truncate(message._file._file.fileno(), 100_000)

    with pytest.raises(OSError, match="shorter"):
        await relayed(message)
    with pytest.raises(OSError, match="shorter"):
        list(message.pieces())
    message.close()


async def test_closed_message_cannot_be_read() -> None:
    message = make_spool().message()
    await add(message, HEADER + b"a" * 100_000)
    message.close()

    with pytest.raises(OSError, match="given up"):
        await relayed(message)


class SlowDisk(Spool):
    """A disk that opens no file before it is told to."""

    def __init__(self) -> None:
        super().__init__(max_buffered_bytes=10_000_000, spool_above=100, directory=None)
        self.asked, self.ready = threading.Event(), threading.Event()
        self.files = []

    def open_file(self):
        self.asked.set()
        self.ready.wait(20)
        self.files.append(super().open_file())
        return self.files[0]


async def test_message_that_is_closed_while_a_thread_writes() -> None:
    """The thread closes the file: its number must not be another one's by the time it is written to."""
    spool = SlowDisk()
    message = spool.message()
    writing = asyncio.create_task(message.append(HEADER + b"a" * 100_000))
    await asyncio.to_thread(spool.asked.wait, 20)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    message.close()
    assert spool.buffered_bytes == 0
    spool.ready.set()
    await asyncio.get_running_loop().shutdown_default_executor()

    assert [file.closed for file in spool.files] == [True]


async def test_message_that_is_closed_while_somebody_waits_for_the_thread() -> None:
    """What it held is given back once."""
    spool = SlowDisk()
    message = spool.message()
    writing = asyncio.create_task(message.append(HEADER + b"a" * 100_000))
    await asyncio.to_thread(spool.asked.wait, 20)
    message.close()
    spool.ready.set()
    await writing

    assert spool.buffered_bytes == 0
    assert [file.closed for file in spool.files] == [True]
