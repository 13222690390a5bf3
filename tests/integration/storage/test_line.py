"""The line in front of a thread: together where possible, alone where not, and everybody is answered."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from smtpguard.errors import StoreUnavailable
from smtpguard.storage import line as line_module
from smtpguard.storage.line import Line, LineFailed


class Desk:
    """Serves numbers, and can be held up; some numbers are bad."""

    def __init__(self) -> None:
        self.served: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.busy = threading.Event()
        self.bad: dict[int, Exception] = {}
        self.on_serving: Callable[[list[int]], None] = lambda _: None

    def serve(self, numbers: Sequence[int]) -> list[int]:
        self.busy.set()
        assert self.open.wait(20)
        self.served.append(list(numbers))
        self.on_serving(list(numbers))
        for number in numbers:
            if number in self.bad:
                raise self.bad[number]
        return [-number for number in numbers]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def line(desk) -> AsyncIterator[Line[int, int]]:
    line = Line("test", desk.serve)
    yield line
    desk.open.set()
    await line.close()


def asking(line: Line[int, int], *numbers: int) -> list[asyncio.Future]:
    return [asyncio.ensure_future(line.ask(number, seconds=20)) for number in numbers]


async def held_up(desk: Desk, line: Line[int, int], first: int = 0) -> asyncio.Future:
    """Let the thread be busy with one request."""
    desk.open.clear()
    [asked] = asking(line, first)
    assert await asyncio.to_thread(desk.busy.wait, 20)
    return asked


async def test_alone(desk, line) -> None:
    assert -7 == await line.ask(7, seconds=20)
    assert [[7]] == desk.served


async def test_those_who_wait_are_served_together(desk, line) -> None:
    first = await held_up(desk, line)
    others = asking(line, 1, 2, 3)
    await asyncio.sleep(0)

    desk.open.set()

    assert [0, -1, -2, -3] == await asyncio.gather(first, *others)
    assert [[0], [1, 2, 3]] == desk.served


async def test_not_too_many_together(desk, line, monkeypatch) -> None:
    monkeypatch.setattr(line_module, "MAX_TOGETHER", 2)
    first = await held_up(desk, line)
    others = asking(line, 1, 2, 3)
    await asyncio.sleep(0)

    desk.open.set()

    assert [0, -1, -2, -3] == await asyncio.gather(first, *others)
    assert [[0], [1, 2], [3]] == desk.served


async def test_bad_request_fails_alone(desk, line) -> None:
    desk.bad[2] = ValueError("two")
    first = await held_up(desk, line)
    others = asking(line, 1, 2, 3)
    await asyncio.sleep(0)

    desk.open.set()

    _, one, two, three = await asyncio.gather(first, *others, return_exceptions=True)
    assert (-1, -3) == (one, three)
    assert "two" == str(two)
    assert [[0], [1, 2, 3], [1], [2], [3]] == desk.served


async def test_failure_of_the_store_is_everybodys(desk, line) -> None:
    """To ask a store that is gone once more for each request would keep them all waiting."""
    desk.bad[1] = LineFailed("gone")
    first = await held_up(desk, line)
    others = asking(line, 1, 2, 3)
    await asyncio.sleep(0)

    desk.open.set()

    _, *failures = await asyncio.gather(first, *others, return_exceptions=True)
    assert [[0], [1, 2, 3]] == desk.served
    assert ["gone"] * 3 == [str(failure) for failure in failures]
    assert all(isinstance(failure, StoreUnavailable) for failure in failures)
    assert 3 == len({id(failure) for failure in failures})


async def test_store_that_goes_while_each_is_served_alone(desk, line) -> None:
    desk.bad = {1: ValueError("one"), 3: LineFailed("gone")}
    first = await held_up(desk, line)
    others = asking(line, 1, 2, 3, 4, 5)
    await asyncio.sleep(0)

    desk.open.set()

    _, one, two, *failures = await asyncio.gather(first, *others, return_exceptions=True)
    assert ("one", -2) == (str(one), two)
    assert ["gone"] * 3 == [str(failure) for failure in failures]
    assert [[0], [1, 2, 3, 4, 5], [1], [2], [3]] == desk.served


async def test_who_has_left_is_not_begun(desk, line) -> None:
    first = await held_up(desk, line)
    one, two, three = asking(line, 1, 2, 3)
    await asyncio.sleep(0)

    two.cancel()
    await asyncio.sleep(0)
    desk.open.set()

    assert [0, -1, -3] == await asyncio.gather(first, one, three)
    assert two.cancelled()
    assert [[0], [1, 3]] == desk.served


async def test_who_leaves_while_each_is_served_alone_is_not_begun(desk, line) -> None:
    def leave(numbers: list[int]) -> None:
        if numbers == [2]:
            loop.call_soon_threadsafe(three.cancel)
            loop.call_soon_threadsafe(left.set)
            assert left.wait(20)

    loop, left = asyncio.get_running_loop(), threading.Event()
    desk.bad[1], desk.on_serving = ValueError("one"), leave
    first = await held_up(desk, line)
    one, two, three, four = asking(line, 1, 2, 3, 4)
    await asyncio.sleep(0)

    desk.open.set()

    assert [0, -2, -4] == await asyncio.gather(first, two, four)
    assert "one" == str(one.exception())
    assert [[0], [1, 2, 3, 4], [1], [2], [4]] == desk.served


async def test_all_have_left(desk, line) -> None:
    first = await held_up(desk, line)
    [one] = asking(line, 1)
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.sleep(0)

    desk.open.set()

    assert [0, -2] == [await first, await line.ask(2, seconds=20)]
    assert [[0], [2]] == desk.served


async def test_who_leaves_while_being_served_disturbs_nobody(desk, line) -> None:
    first = await held_up(desk, line)
    first.cancel()

    desk.open.set()

    assert -1 == await line.ask(1, seconds=20)
    assert [[0], [1]] == desk.served


async def test_waiting_has_an_end(desk, line) -> None:
    await held_up(desk, line)

    with pytest.raises(TimeoutError):
        await line.ask(1, seconds=0.01)

    desk.open.set()
    assert -2 == await line.ask(2, seconds=20)
    assert [[0], [2]] == desk.served


async def test_closing_serves_those_who_wait(desk, line) -> None:
    first = await held_up(desk, line)
    others = asking(line, 1, 2)
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(line.close())
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailable, match=r"^the store is closed$"):
        await line.ask(3, seconds=20)
    desk.open.set()
    await closing

    assert [0, -1, -2] == await asyncio.gather(first, *others)
    assert not line._thread.is_alive()


async def test_closing_twice(line) -> None:
    await line.close()
    await line.close()
