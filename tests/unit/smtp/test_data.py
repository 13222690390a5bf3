"""Reading a message off the wire."""

import asyncio
import itertools
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.domain.message import stuff
from smtpguard.domain.reply import R452_STORE_FULL, R552_TOO_BIG, Reply
from smtpguard.smtp.data import ChunkedIntake, ConnectionEndedError, read_chunk, read_data
from smtpguard.smtp.input import Input
from smtpguard.spool import Spool, WireMessage

LIMIT = 10_000
PIECES = st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"\r\n.", b"a", b"\0", b"\xff"]), max_size=40)


@contextmanager
def new_message(*, spool_above: int = 100_000, max_buffered_bytes: int = 10_000_000) -> Iterator[WireMessage]:
    spool = Spool(max_buffered_bytes=max_buffered_bytes, spool_above=spool_above, directory=None)
    message = spool.message()
    try:
        yield message
    finally:
        message.close()
        assert spool.buffered_bytes == 0


async def fed(packets: tuple[bytes, ...], reading) -> bytes:
    """Feed packets one by one, each only when the reader waits for it; return what was left."""
    reader = Input(asyncio.get_running_loop())
    task = asyncio.get_running_loop().create_task(reading(reader))
    for packet in packets:
        await asyncio.sleep(0)
        reader.feed_data(packet)
    await asyncio.sleep(0)
    reader.feed_eof()
    await task
    return reader.pending


async def read(*packets: bytes, limit: int = LIMIT, spool_above: int = 100_000) -> tuple[bytes | Reply, bytes]:
    """Read by DATA; return the message, or its refusal, and what was left."""
    with new_message(spool_above=spool_above) as message:

        async def reading(reader: Input) -> None:
            nonlocal refusal
            refusal = await read_data(reader, message, limit=limit, on_progress=lambda _: None)

        refusal: Reply | None = None
        rest = await fed(packets, reading)
        return refusal or b"".join(message.pieces()), rest


def cut(octets: bytes, cuts: set[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in cuts if cut < len(octets)), len(octets)]
    return [octets[start:stop] for start, stop in itertools.pairwise(edges) if start < stop]


@pytest.mark.parametrize(
    ("octets", "wire", "rest"),
    [
        (b".\r\n", b"", b""),
        (b"\r\n.\r\n", b"\r\n", b""),
        (b"a\r\n.\r\n", b"a\r\n", b""),
        (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", b"QUIT\r\n"),
        (b"..\r\n.\r\n", b"..\r\n", b""),
        (b"a\n.\n\r\n.\r\n", b"a\n.\n\r\n", b""),
        (b"a\r.\r\r\n.\r\n", b"a\r.\r\r\n", b""),
        (b"a\r\n.\rb\r\n.\r\n", b"a\r\n.\rb\r\n", b""),
        (b"a\r\n.\nb\r\n.\r\n", b"a\r\n.\nb\r\n", b""),
    ],
)
async def test_only_crlf_dot_crlf_ends_a_message(octets, wire, rest) -> None:
    assert (wire, rest) == await read(octets)
    assert (wire, rest) == await read(*(bytes([octet]) for octet in octets))


@pytest.mark.parametrize("spool_above", [1, 8, 100_000])
@given(body=PIECES, cuts=st.sets(st.integers(0, 90)))
async def test_however_a_message_is_cut_it_is_the_same(spool_above, body, cuts) -> None:
    """The reference is the definition: the message ends at the first CRLF . CRLF, the CRLF before it included."""
    octets = b"".join(body) + b"\r\n.\r\nNOOP\r\n"
    end = (b"\r\n" + octets).index(b"\r\n.\r\n")

    wire, rest = await read(*cut(octets, cuts), spool_above=spool_above)

    assert (octets[:end], octets[end + 3 :]) == (wire, rest)


@pytest.mark.parametrize("piece", [b"a", b"a\r\n", b"\r\n..\r\n", b"\r\n.\r"])
async def test_message_too_big_is_read_to_its_end_in_bounded_memory(piece) -> None:
    """Whatever comes: many lines, or not a single line end."""
    reader = Input(asyncio.get_running_loop())
    with new_message() as message:
        task = asyncio.get_running_loop().create_task(
            read_data(reader, message, limit=LIMIT, on_progress=lambda _: None)
        )
        packet = piece * (100_000 // len(piece))
        tracemalloc.start()
        for _ in range(200):
            reader.feed_data(packet)
            while reader.pending:
                await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        reader.feed_data(b"\r\n.\r\nNOOP\r\n")

        assert await task is R552_TOO_BIG
        assert reader.pending == b"NOOP\r\n"
        assert peak < 10 * len(packet)
        assert message.failure == f"the message has more than {LIMIT} octets"


async def test_limit_is_exact() -> None:
    assert len((await read(b"a" * 98 + b"\r\n.\r\n", limit=100))[0]) == 100
    assert (await read(b"a" * 99 + b"\r\n.\r\n", limit=100))[0] is R552_TOO_BIG


async def test_message_that_finds_no_memory_is_read_to_its_end() -> None:
    reader = Input(asyncio.get_running_loop())
    reader.feed_data(b"a" * 5000 + b"\r\n.\r\nNOOP\r\n")
    with new_message(max_buffered_bytes=4096) as message:
        refusal = await read_data(reader, message, limit=LIMIT, on_progress=lambda _: None)

        assert refusal is R452_STORE_FULL
        assert message.failure == "the message cannot be held: no room in memory"
    assert reader.pending == b"NOOP\r\n"


async def test_end_of_connection_within_a_message() -> None:
    with pytest.raises(ConnectionEndedError):
        await read(b"a\r\n.\r")


async def test_progress_is_told_for_each_chunk() -> None:
    told: list[int] = []
    reader = Input(asyncio.get_running_loop())
    reader.feed_data(b"a\r\n.\r\n")
    with new_message() as message:
        await read_data(reader, message, limit=LIMIT, on_progress=told.append)

    assert told == [6]


# BDAT


async def read_chunks(
    octets: bytes, sizes: list[int], *packets: bytes, spool_above: int = 100_000, limit: int = LIMIT
) -> tuple[bytes | Reply, bytes]:
    """Read ``octets`` as BDAT chunks of these sizes, the last of which takes what is left."""
    with new_message(spool_above=spool_above) as message:
        intake = ChunkedIntake(message, limit=limit)

        async def reading(reader: Input) -> None:
            nonlocal refusal
            left = len(octets)
            for size in sizes:
                chunk = min(size, left)
                left -= chunk
                refusal = await read_chunk(reader, chunk, intake, last=False, on_progress=lambda _: None)
            refusal = await read_chunk(reader, left, intake, last=True, on_progress=lambda _: None)

        refusal: Reply | None = None
        rest = await fed(packets, reading)
        return refusal or b"".join(message.pieces()), rest


@pytest.mark.parametrize("spool_above", [1, 8, 100_000])
@given(body=PIECES, cuts=st.sets(st.integers(0, 90)), sizes=st.lists(st.integers(0, 9), max_size=12))
async def test_chunks_make_the_same_message_as_data(spool_above, body, cuts, sizes) -> None:
    """Wherever chunks and packets are cut; what follows the last chunk is left alone."""
    octets = b"".join(body)
    whole = octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"

    wire, rest = await read_chunks(octets, sizes, *cut(octets + b".\r\nNOOP\r\n", cuts), spool_above=spool_above)

    assert (stuff(whole), b".\r\nNOOP\r\n") == (wire, rest)


async def test_chunk_is_consumed_whatever_becomes_of_it() -> None:
    """A refusal stands for the chunks that follow."""
    assert await read_chunks(b"a" * 99, [50], b"a" * 99 + b"NOOP\r\n", limit=60) == (R552_TOO_BIG, b"NOOP\r\n")
    assert await read_chunks(b"a" * 99, [70, 10], b"a" * 99 + b"NOOP\r\n", limit=60) == (R552_TOO_BIG, b"NOOP\r\n")


async def test_line_end_that_a_message_gets_counts() -> None:
    assert (await read_chunks(b"a" * 58, [], b"a" * 58, limit=60))[0] == b"a" * 58 + b"\r\n"
    assert (await read_chunks(b"a" * 59, [], b"a" * 59, limit=60))[0] is R552_TOO_BIG


async def test_chunk_that_nobody_wants_is_thrown_away() -> None:
    told: list[int] = []
    reader = Input(asyncio.get_running_loop())
    reader.feed_data(b"a" * 200_000 + b"NOOP\r\n")

    assert await read_chunk(reader, 200_000, None, last=True, on_progress=told.append) is None

    assert reader.pending == b"NOOP\r\n"
    assert sum(told) == 200_000


async def test_end_of_connection_within_a_chunk() -> None:
    with pytest.raises(ConnectionEndedError):
        await read_chunks(b"a" * 10, [], b"a" * 9)
