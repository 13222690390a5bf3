"""Reading a message off the wire."""

import asyncio
import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.smtp.data import ConnectionEndedError, read_data

LIMIT = 10_000


async def read(*packets: bytes, limit: int = LIMIT) -> tuple[bytearray | None, bytes]:
    """Feed packets one by one, each only when the reader waits for it; return the message and what was left."""
    reader = asyncio.StreamReader()
    task = asyncio.get_running_loop().create_task(read_data(reader, limit=limit, on_progress=lambda: None))
    for packet in packets:
        await asyncio.sleep(0)
        reader.feed_data(packet)
    await asyncio.sleep(0)
    reader.feed_eof()
    wire = await task
    return wire, await reader.read()


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


@given(
    body=st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"\r\n.", b"a", b"\0", b"\xff"]), max_size=40),
    cuts=st.sets(st.integers(0, 90)),
)
async def test_however_a_message_is_cut_it_is_the_same(body, cuts) -> None:
    """The reference is the definition: the message ends at the first CRLF . CRLF, the CRLF before it included."""
    octets = b"".join(body) + b"\r\n.\r\nNOOP\r\n"
    end = (b"\r\n" + octets).index(b"\r\n.\r\n")
    edges = [0, *sorted(cut for cut in cuts if cut < len(octets)), len(octets)]
    packets = [octets[start:stop] for start, stop in itertools.pairwise(edges) if start < stop]

    wire, rest = await read(*packets)

    assert (octets[:end], octets[end + 3 :]) == (wire, rest)


@pytest.mark.parametrize("piece", [b"a", b"a\r\n", b"\r\n..\r\n", b"\r\n.\r"])
async def test_message_too_big_is_read_to_its_end_in_bounded_memory(piece) -> None:
    """Whatever comes: many lines, or not a single line end."""
    reader = asyncio.StreamReader()
    task = asyncio.get_running_loop().create_task(read_data(reader, limit=LIMIT, on_progress=lambda: None))
    packet = piece * (100_000 // len(piece))
    tracemalloc.start()
    for _ in range(200):
        reader.feed_data(packet)
        while reader._buffer:
            await asyncio.sleep(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reader.feed_data(b"\r\n.\r\nNOOP\r\n")

    assert await task is None
    assert bytes(reader._buffer) == b"NOOP\r\n"
    assert peak < 10 * len(packet)


async def test_limit_is_exact() -> None:
    assert len((await read(b"a" * 98 + b"\r\n.\r\n", limit=100))[0]) == 100
    assert (await read(b"a" * 99 + b"\r\n.\r\n", limit=100))[0] is None


async def test_end_of_connection_within_a_message() -> None:
    with pytest.raises(ConnectionEndedError):
        await read(b"a\r\n.\r")


async def test_progress_is_told_for_each_chunk() -> None:
    told = []
    reader = asyncio.StreamReader()
    reader.feed_data(b"a\r\n.\r\n")

    await read_data(reader, limit=LIMIT, on_progress=lambda: told.append(True))

    assert told == [True]
