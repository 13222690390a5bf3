"""The line in front of a channel: together where possible, alone where not, and everybody is answered, in time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import psycopg
import pytest
from sqlalchemy import text

from smtpguard.errors import StoreUnavailable
from smtpguard.storage import postgres_line
from smtpguard.storage.line import LineFailed
from smtpguard.storage.postgres import RECORD, PostgresDatabase
from smtpguard.storage.postgres_channel import Channel
from smtpguard.storage.postgres_line import PostgresLine
from smtpguard.storage.postgres_statements import Statement, array
from tests.integration.storage.builders import connected, held_up
from tests.support.eventually import eventually

UNDIVIDABLE, DEADLY, SLOW, UNSPEAKABLE, UNREADABLE = 0, 66, 77, 88, 99
TENTHS = Statement(
    "tenths",
    text(
        f"SELECT CASE n WHEN {DEADLY} THEN pg_terminate_backend(pg_backend_pid())::int"
        f" WHEN {SLOW} THEN (SELECT 1 FROM pg_sleep(2)) ELSE 100 / n END"
        " FROM unnest(CAST(:numbers AS int[])) AS asked (n)"
    ),
)


class Tenths:
    """Divides a hundred by numbers; some are bad."""

    def __init__(self) -> None:
        self.served: list[list[int]] = []
        self.on_serving: Callable[[list[int]], None] = lambda _: None

    def commands(self, numbers: Sequence[int]) -> list:
        self.served.append(list(numbers))
        self.on_serving(list(numbers))
        if UNSPEAKABLE in numbers:
            raise ValueError("unspeakable")
        return [TENTHS.given({"numbers": array(map(str, numbers))})]

    def answers(self, numbers: Sequence[int], rows) -> list[int]:
        if UNREADABLE in numbers:
            raise ValueError("unreadable")
        return [row[0] for row in rows[0]]


@pytest.fixture
def tenths() -> Tenths:
    return Tenths()


@asynccontextmanager
async def lined_up(tenths, url, *, connect=None, seconds=20.0, answer_seconds=20.0) -> AsyncIterator[PostgresLine]:
    connect = connect or (lambda: PostgresDatabase(url).connect(RECORD))
    channel = Channel(connect, [TENTHS], answer_seconds=answer_seconds)
    line = PostgresLine(channel, tenths, seconds=seconds, too_late="too late")
    try:
        yield line
    finally:
        await line.close()
    assert channel._connection is None


@pytest.fixture
async def line(tenths, postgres_url) -> AsyncIterator[PostgresLine]:
    async with lined_up(tenths, postgres_url) as line:
        yield line


async def served_after(line: PostgresLine, *numbers: int) -> list:
    """Ask while the line is busy with a 1; return the outcomes."""
    async with held_up(line, line.ask(1)):
        others = [line.ask(number) for number in numbers]
    return await asyncio.gather(*others, return_exceptions=True)


async def test_alone(tenths, line) -> None:
    assert 50 == await line.ask(2)
    assert [[2]] == tenths.served


async def test_those_of_one_turn_of_the_loop_are_served_together(tenths, line) -> None:
    assert [100, 50, 25] == await asyncio.gather(*map(line.ask, (1, 2, 4)))
    assert [[1, 2, 4]] == tenths.served


async def test_those_who_wait_are_served_together(tenths, line) -> None:
    assert [50, 25] == await served_after(line, 2, 4)
    assert [[1], [2, 4]] == tenths.served


async def test_not_too_many_together(tenths, line, monkeypatch) -> None:
    monkeypatch.setattr(postgres_line, "MAX_TOGETHER", 2)

    assert [50, 25, 20] == await served_after(line, 2, 4, 5)
    assert [[1], [2, 4], [5]] == tenths.served


@pytest.mark.parametrize(
    ("bad", "says"), [(UNDIVIDABLE, "division by zero"), (UNSPEAKABLE, "unspeakable"), (UNREADABLE, "unreadable")]
)
async def test_bad_request_fails_alone(tenths, line, bad, says) -> None:
    two, failure, four = await served_after(line, 2, bad, 4)

    assert (50, 25) == (two, four)
    assert says in str(failure)
    assert not isinstance(failure, StoreUnavailable)
    assert [[1], [2, bad, 4], [2], [bad], [4]] == tenths.served


async def test_many_bad_requests(tenths, line) -> None:
    outcomes = await served_after(line, *[UNSPEAKABLE] * 100, 2)

    assert 100 == sum(isinstance(outcome, ValueError) for outcome in outcomes)
    assert 50 == outcomes[-1]


async def test_lost_connection_is_everybodys_failure(tenths, line) -> None:
    """Whether the server did it is not known; the next one has a new connection."""
    failures = await served_after(line, 2, DEADLY, 4)

    assert all(type(failure) is LineFailed for failure in failures)
    assert 3 == len({id(failure) for failure in failures})
    assert {"the store cannot be used: terminating connection due to administrator command"} == {
        str(failure).partition(" CONTEXT")[0] for failure in failures
    }
    assert [[1], [2, DEADLY, 4]] == tenths.served
    assert 20 == await line.ask(5)


async def test_connection_that_is_lost_while_each_is_served_alone(tenths, line) -> None:
    bad, two, *failures = await served_after(line, UNDIVIDABLE, 2, DEADLY, 4, 5)

    assert "division by zero" in str(bad)
    assert 50 == two
    assert [LineFailed] * 3 == [type(failure) for failure in failures]
    assert [[1], [UNDIVIDABLE, 2, DEADLY, 4, 5], [UNDIVIDABLE], [2], [DEADLY]] == tenths.served


async def test_who_has_left_is_not_begun(tenths, line) -> None:
    async with held_up(line, line.ask(1)):
        two, four, five = map(line.ask, (2, 4, 5))
        four.cancel()

    assert [50, 20] == await asyncio.gather(two, five)
    assert [[1], [2, 5]] == tenths.served


async def test_who_leaves_while_each_is_served_alone_is_not_begun(tenths, line) -> None:
    tenths.on_serving = lambda numbers: numbers == [2] and four.cancel()
    async with held_up(line, line.ask(1)):
        bad, two, four, five = map(line.ask, (UNDIVIDABLE, 2, 4, 5))

    assert [50, 20] == await asyncio.gather(two, five)
    assert isinstance(bad.exception(), psycopg.Error)
    assert [[1], [UNDIVIDABLE, 2, 4, 5], [UNDIVIDABLE], [2], [5]] == tenths.served


async def test_all_have_left(tenths, line) -> None:
    async with held_up(line, line.ask(1)):
        line.ask(2).cancel()

    assert 25 == await line.ask(4)
    assert [[1], [4]] == tenths.served


async def test_who_leaves_while_being_served_disturbs_nobody(tenths, line) -> None:
    async with held_up(line, asyncio.gather(first := line.ask(1), return_exceptions=True)):
        first.cancel()

    assert 25 == await line.ask(4)
    assert [[1], [4]] == tenths.served


async def test_waiting_has_an_end(tenths, postgres_url) -> None:
    """Also for who waits in line, and for who waits for a connection that does not come about."""
    go = threading.Event()

    def connect():
        assert go.wait(20)
        return PostgresDatabase(postgres_url).connect(RECORD)

    async with lined_up(tenths, postgres_url, connect=connect, seconds=0.05, answer_seconds=0.04) as line:
        waiting = [line.ask(2)]
        await asyncio.sleep(0)
        waiting.append(line.ask(4))
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        go.set()

    assert [(StoreUnavailable, "too late")] * 2 == [(type(outcome), str(outcome)) for outcome in outcomes]
    assert [] == tenths.served


async def test_server_that_does_not_answer(tenths, postgres_url) -> None:
    """Its connection is given up, and who came meanwhile is served on another one."""
    async with lined_up(tenths, postgres_url, answer_seconds=0.1) as line:
        slow = line.ask(SLOW)
        await eventually(lambda: tenths.served)
        other = line.ask(2)

        with pytest.raises(LineFailed, match=r"^the store cannot be used: the server did not answer within 0.1 s$"):
            await slow
        assert 50 == await other


async def test_closing_serves_those_who_wait(tenths, line) -> None:
    async with held_up(line, line.ask(1)):
        others = [line.ask(2), line.ask(4)]
        closing = asyncio.ensure_future(line.close())
        await asyncio.sleep(0)

        with pytest.raises(StoreUnavailable, match=r"^the store is closed$"):
            line.ask(5)
    await closing

    assert [50, 25] == await asyncio.gather(*others)


async def test_closing_serves_who_has_just_come(line) -> None:
    asked = line.ask(2)
    await line.close()

    assert 50 == asked.result()


async def test_closing_twice(line) -> None:
    await line.close()
    await line.close()


async def test_nobody_to_connect_to(tenths, postgres_url) -> None:
    """Whoever waited for it hears so, and who comes after it tries anew."""

    def connect():
        attempts.append(1)
        if len(attempts) == 1:
            raise psycopg.OperationalError("connection\nrefused")
        return PostgresDatabase(postgres_url).connect(RECORD)

    attempts: list[int] = []
    async with lined_up(tenths, postgres_url, connect=connect) as line:
        failures = await asyncio.gather(line.ask(1), line.ask(2), return_exceptions=True)
        assert 50 == await line.ask(2)

    assert ["the store cannot be used: connection refused"] * 2 == [str(failure) for failure in failures]
    assert all(isinstance(failure, StoreUnavailable) for failure in failures)
    assert 2 == len(attempts)


async def test_connecting_holds_nobody_up(tenths, postgres_url) -> None:
    """The event loop goes on; who has left when there is a connection is not begun."""
    go = threading.Event()

    def connect():
        assert go.wait(20)
        return PostgresDatabase(postgres_url).connect(RECORD)

    async with lined_up(tenths, postgres_url, connect=connect) as line:
        one, two = line.ask(1), line.ask(2)
        await asyncio.sleep(0)
        four = line.ask(4)
        one.cancel()
        go.set()

        assert [50, 25] == await asyncio.gather(two, four)
    assert [[2], [4]] == tenths.served


async def test_farewell_of_the_server_is_heard_at_rest(line, postgres_url) -> None:
    await line.ask(2)
    with connected(postgres_url) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        connection.execute(text(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"))

    await eventually(lambda: line._channel._connection is None)
    assert 50 == await line.ask(2)


async def test_more_than_a_socket_takes_at_once(line, monkeypatch) -> None:
    writers = []
    add_writer = line._loop.add_writer
    monkeypatch.setattr(line._loop, "add_writer", lambda *arguments: (writers.append(1), add_writer(*arguments)))
    tenths = line._conversation
    tenths.answers = lambda _, rows: [len(rows[0])]
    tenths.commands = lambda numbers: [TENTHS.given({"numbers": array(["1"] * numbers[0])})]

    assert 1_000_000 == await line.ask(1_000_000)
    assert writers


async def test_one_timer_watches_over_all(tenths, line) -> None:
    await line.ask(1)
    alarm = line._alarm
    await asyncio.gather(*map(line.ask, (1, 2, 4)))

    assert alarm is line._alarm
    line._watch()
    assert line._alarm is None
