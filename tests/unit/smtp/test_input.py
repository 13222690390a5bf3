"""What an application has sent and the session has not read yet."""

import asyncio
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.smtp.input import HIGH_WATER_OCTETS, Input

LIMIT = 8
PIECE = st.lists(st.sampled_from([b"a", b"QUIT", b"\r", b"\n", b"\r\n", b"x" * 7]), min_size=1, max_size=4).map(
    b"".join
)
T = TypeVar("T")


class Tap(asyncio.Transport):
    """What the octets come from: it notes whether it is held back, and is never held back or let go twice."""

    def __init__(self) -> None:
        super().__init__()
        self.is_paused = False
        self.pauses = 0

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False


def new_input() -> Input:
    return Input(asyncio.get_running_loop())


def tapped() -> tuple[Input, Tap]:
    input_, tap = new_input(), Tap()
    input_.come_from(tap)
    return input_, tap


@asynccontextmanager
async def waiting(reading: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Let a reader wait for what is fed within the block."""
    task = asyncio.get_running_loop().create_task(reading)
    await asyncio.sleep(0)
    assert not task.done()
    yield task
    await asyncio.wait([task])


def cut(octets: bytes, cuts: set[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(octets)), len(octets)]
    return [octets[start:stop] for start, stop in itertools.pairwise(edges) if start < stop]


# Lines


async def lines_of(input_: Input) -> list[bytes | None]:
    """Read lines to the end of the input."""
    lines = []
    try:
        while True:
            lines.append(await input_.line(LIMIT))
    except asyncio.IncompleteReadError:
        return lines


@given(pieces=st.lists(PIECE, max_size=20), cuts=st.sets(st.integers(0, 300)), waits=st.booleans())
async def test_lines_are_the_same_however_they_are_cut(pieces, cuts, waits) -> None:
    """Whether the reader waits for each packet or finds all of them; None for a line that is too long."""
    octets = b"".join(pieces)
    whole = [line + b"\n" for line in octets.split(b"\n")[:-1]]
    input_ = new_input()

    reading = asyncio.get_running_loop().create_task(lines_of(input_))
    for packet in cut(octets, cuts):
        await asyncio.sleep(0) if waits else None
        input_.feed_data(packet)
    input_.feed_eof()

    assert await reading == [line if len(line) <= LIMIT else None for line in whole]


async def test_limit_counts_the_line_end() -> None:
    input_ = new_input()
    input_.feed_data(b"a" * 7 + b"\n" + b"b" * 8 + b"\n" + b"c\n")

    assert [await input_.line(8) for _ in range(3)] == [b"a" * 7 + b"\n", None, b"c\n"]


@pytest.mark.parametrize("octets", [1, 100, 100_000])
async def test_line_that_is_too_long_is_read_in_bounded_memory(octets) -> None:
    input_, tap = tapped()
    async with waiting(input_.line(2048)) as reading:
        tracemalloc.start()
        for _ in range(400):
            input_.feed_data(b"x" * octets)
            while len(input_.pending) > 2048:
                await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        input_.feed_data(b"y\r\nNOOP\r\n")

    assert (await reading, input_.pending) == (None if octets > 5 else b"x" * 400 * octets + b"y\r\n", b"NOOP\r\n")
    assert peak < 8 * octets + 50_000
    assert not tap.is_paused


async def test_line_of_the_reader_of_proxy_headers() -> None:
    """As a StreamReader has it."""
    input_ = new_input()
    input_.feed_data(b"PROXY UNKNOWN\r\n" + b"x" * (HIGH_WATER_OCTETS + 1) + b"\n")

    assert await input_.readuntil() == b"PROXY UNKNOWN\r\n"
    with pytest.raises(asyncio.LimitOverrunError):
        await input_.readuntil()


# Reads, against a plain string of octets


async def read_some(input_: Input, model: bytes, octets: int) -> bytes:
    """It gives something, and no more than was asked for."""
    got = await input_.read(octets)
    assert 0 < len(got) <= octets
    return got


async def read_exactly(input_: Input, model: bytes, octets: int) -> bytes:
    octets = min(octets, len(model))
    got = await input_.readexactly(octets)
    assert len(got) == octets
    return got


async def read_line(input_: Input, model: bytes, octets: int) -> bytes:
    if b"\n" not in model:
        return b""
    got = await input_.line(1000)
    assert got == model[: model.index(b"\n") + 1]
    return got


async def take_all(input_: Input, model: bytes, octets: int) -> bytes:
    return input_.take()


READS: list[Callable[[Input, bytes, int], Coroutine[Any, Any, bytes]]] = [read_some, read_exactly, read_line, take_all]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), PIECE),
        st.tuples(st.sampled_from(READS), st.integers(1, 20)),
        st.just(("back", b"b\n")),
    ),
    max_size=40,
)


@given(steps=STEPS)
async def test_nothing_is_lost_and_nothing_comes_twice(steps) -> None:
    input_, model = new_input(), b""
    for act, what in steps:
        if act == "feed":
            input_.feed_data(what)
            model += what
        elif act == "back":
            input_.give_back(what)
            model = what + model
        elif model:
            got = await act(input_, model, what)
            assert model.startswith(got)
            model = model[len(got) :]
        assert input_.pending == model


async def test_giving_nothing_back_is_not_an_end() -> None:
    input_ = new_input()
    input_.give_back(b"")
    async with waiting(input_.read(LIMIT)) as reading:
        input_.feed_data(b"a")

    assert await reading == b"a"


async def test_reader_that_is_cancelled_takes_nothing_along() -> None:
    """Even where what it waited for has come at that moment; the next reader gets it."""
    input_ = new_input()
    async with waiting(input_.line(LIMIT)) as reading:
        input_.feed_data(b"a\n")
        reading.cancel()

    assert reading.cancelled()
    assert await input_.line(LIMIT) == b"a\n"


# Holding the application back


async def test_application_that_sends_too_much_is_held_back_until_enough_is_read() -> None:
    """And no longer, though nobody waits for more: one that is held back is not seen to leave."""
    input_, tap = tapped()
    input_.feed_data(b"x" * HIGH_WATER_OCTETS)
    assert not tap.is_paused
    input_.feed_data(b"\n")
    input_.feed_data(b"what was on its way\n")
    assert tap.is_paused

    await input_.read(len(b"what was on its way\n"))
    assert tap.is_paused
    await input_.read(1)
    assert (tap.is_paused, tap.pauses) == (False, 1)


async def test_application_is_held_back_again() -> None:
    input_, tap = tapped()
    for _ in range(3):
        input_.feed_data(b"x" * (HIGH_WATER_OCTETS + 1))
        assert tap.is_paused
        await input_.readexactly(HIGH_WATER_OCTETS + 1)
        assert not tap.is_paused

    assert tap.pauses == 3


async def test_packets_of_two_octets_take_little_memory() -> None:
    input_, tap = tapped()
    tracemalloc.start()
    while not tap.is_paused:
        input_.feed_data(bytes(bytearray(b"ab")))  # an object of its own, as each that comes off the network
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(input_.pending) == HIGH_WATER_OCTETS + 2
    assert held < 2 * HIGH_WATER_OCTETS


async def test_what_is_taken_lets_more_come() -> None:
    """For whoever reads from the transport from then on, which is TLS."""
    input_, tap = tapped()
    input_.feed_data(b"x" * (HIGH_WATER_OCTETS + 1))

    assert len(input_.take()) == HIGH_WATER_OCTETS + 1
    assert (input_.pending, tap.is_paused) == (b"", False)
    assert input_.take() == b""


async def test_another_transport_is_held_back_on_its_own() -> None:
    input_, tap = tapped()
    input_.feed_data(b"x" * (HIGH_WATER_OCTETS + 1))
    behind = Tap()
    input_.come_from(behind)
    input_.take()
    input_.feed_data(b"x" * (HIGH_WATER_OCTETS + 1))

    assert (tap.pauses, behind.pauses) == (1, 1)


@given(sizes=st.lists(st.integers(1, 2 * HIGH_WATER_OCTETS), max_size=8), reads=st.lists(st.integers(1, 100_000)))
async def test_nobody_waits_for_an_application_that_is_held_back(sizes, reads) -> None:
    input_, tap = tapped()
    for size, octets in itertools.zip_longest(sizes, reads):
        if size is not None and not tap.is_paused:
            input_.feed_data(b"x" * size)
        if octets is not None and input_.pending:
            await input_.read(octets)
    while input_.pending:
        await input_.read(100_000)
    async with waiting(input_.read(LIMIT)):
        assert not tap.is_paused
        input_.feed_eof()


# The end


async def test_what_came_before_the_end_is_read_before_it() -> None:
    input_ = new_input()
    input_.feed_data(b"NOOP\r\nNO")
    input_.feed_eof()

    assert await input_.line(LIMIT) == b"NOOP\r\n"
    with pytest.raises(asyncio.IncompleteReadError) as ended:
        await input_.line(LIMIT)
    assert ended.value.partial == b"NO"
    assert [await input_.read(LIMIT), await input_.read(5)] == [b"", b""]


async def test_end_wakes_who_waits() -> None:
    input_ = new_input()
    async with waiting(input_.read(LIMIT)) as reading:
        input_.feed_eof()
    assert await reading == b""

    with pytest.raises(asyncio.IncompleteReadError):
        await input_.line(LIMIT)


async def test_end_within_what_is_to_be_whole() -> None:
    input_ = new_input()
    async with waiting(input_.readexactly(5)) as reading:
        input_.feed_data(b"abc")
        input_.feed_eof()

    with pytest.raises(asyncio.IncompleteReadError) as ended:
        await reading
    assert ended.value.partial == b"abc"


async def test_what_is_given_back_behind_the_end_is_read() -> None:
    """A message and its QUIT in one packet, and the end of the input behind it."""
    input_ = new_input()
    input_.feed_data(b"message.QUIT\r\n")
    input_.feed_eof()
    octets = await input_.read(100)
    input_.give_back(octets[8:])

    assert await input_.line(LIMIT) == b"QUIT\r\n"
    assert await input_.read(LIMIT) == b""


@pytest.mark.parametrize(
    ("octets", "is_quit"),
    [
        (b"", False),
        (b"QUIT", False),
        (b"QUIT\r\n", True),
        (b"quit\r\n", True),
        (b"NOOP\r\nQUIT\r\n", True),
        (b"QUIT\r\nNOOP\r\n", False),
        (b"QUIT\r\n\r\n", False),
        (b"QUIT\n", False),
        (b"IT\r\n", False),
    ],
)
async def test_last_is_quit(octets, is_quit) -> None:
    """However it is cut, read or not."""
    for size in range(1, len(octets) + 1):
        input_ = new_input()
        for start in range(0, len(octets), size):
            input_.feed_data(octets[start : start + size])
        assert input_.last_is_quit is is_quit
        input_.take()
        assert input_.last_is_quit is is_quit
    assert not new_input().last_is_quit
