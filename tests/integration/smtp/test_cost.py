"""What a message costs, counted and not timed: the same on a slow machine as on a fast one.

Counted are the calls of functions of the guard (each time a coroutine goes on counts as one) and the statements that
SQLite is given; metrics are on. A change that makes a message dearer fails here and has to say so, by a new number. What the numbers
mean in messages a second, ``make bench`` measures.
"""

import asyncio
import sqlite3
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import smtpguard
from tests.support.api import ON_LOOPBACK
from tests.support.guard import guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import Transcript, greeted

OURS = str(Path(smtpguard.__file__).parent)
MESSAGES = 10
TEN = tuple(f"verified{number}@verified.example" for number in range(10))
STRANGER = "xyz123@provider.example"
MARGIN = 1.1
"""Between versions of Python."""


@contextmanager
def calls() -> Iterator[Counter[str]]:
    """Count the calls of our functions, in this thread."""
    counted: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS):
            counted[f"{code.co_filename.removeprefix(OURS)}:{code.co_qualname}"] += 1

    sys.setprofile(note)
    try:
        yield counted
    finally:
        sys.setprofile(None)


@pytest.fixture
def statements(monkeypatch) -> list[str]:
    """The statements of every connection that is opened to SQLite."""
    given: list[str] = []
    connect = sqlite3.connect

    def connect_and_listen(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(given.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_and_listen)
    return given


async def submit(client: Transcript, *recipients: str) -> None:
    """One message over an open session, each command after the reply to the last."""
    await client.ask("MAIL FROM:<crm@app.example>", "250 *")
    for recipient in recipients:
        await client.ask(f"RCPT TO:<{recipient}>", "250 *")
    await client.ask("DATA", "354 *")
    await client.send("Message-ID: <1@app.example>", "Subject: Your order", "", *["0123456789" * 7] * 50, ".")
    await client.expect("250 2.0.0 *")


@asynccontextmanager
async def submitting(url: str, *recipients: str):
    """Give what submits one message to a guard that has done so before."""
    async with ScriptedSmarthost() as smarthost, guarding(url, smarthost.port, web=ON_LOOPBACK) as guard:
        await verify(guard.desks, *TEN)
        async with greeted(guard.port) as client:
            for _ in range(3):
                await submit(client, *recipients)
            yield lambda: submit(client, *recipients)


async def repeated(act: Callable[[], Awaitable[None]]) -> None:
    for _ in range(MESSAGES):
        await act()
    await asyncio.sleep(0)  # what is done after the reply


@pytest.mark.parametrize(
    ("recipients", "budget"),
    [
        pytest.param(TEN[:1], 357, id="relayed to one"),
        pytest.param(TEN, 1116, id="relayed to ten"),
        pytest.param((STRANGER,), 305, id="kept"),
    ],
)
async def test_calls_a_message(sqlite_url, recipients, budget) -> None:
    async with submitting(sqlite_url, *recipients) as act:
        with calls() as counted:
            await repeated(act)
    a_message = counted.total() / MESSAGES

    dearest = "\n".join(f"{number / MESSAGES:6.1f} {name}" for name, number in counted.most_common(40))
    assert budget / MARGIN / MARGIN < a_message <= budget * MARGIN, f"{a_message:.0f} calls a message:\n{dearest}"


@pytest.mark.parametrize(
    ("recipients", "wanted"),
    [
        pytest.param(TEN[:1], ["SELECT", "SELECT", "BEGIN", "INSERT", "COMMIT"], id="relayed to one"),
        pytest.param(TEN, [*["SELECT"] * 20, "BEGIN", *["INSERT"] * 10, "COMMIT"], id="relayed to ten"),
        pytest.param(
            (STRANGER,),
            ["SELECT", "SELECT", "PRAGMA", "BEGIN", "INSERT", "INSERT", "COMMIT", "BEGIN", "INSERT", "COMMIT"],
            id="kept",
        ),
    ],
)
async def test_statements_a_message(statements, sqlite_url, recipients, wanted) -> None:
    """Two look-ups a recipient, one commit; what is kept costs one more, with its own row and that of its content."""
    async with submitting(sqlite_url, *recipients) as act:
        statements.clear()
        await act()
        await asyncio.sleep(0)
        given = [statement.split()[0] for statement in statements]

    assert given == wanted
