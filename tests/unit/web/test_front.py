"""The outermost layer, around applications that misbehave."""

import asyncio

from structlog.testing import capture_logs

from smtpguard.telemetry import get_logger
from smtpguard.web import front
from smtpguard.web.front import Front
from smtpguard.web.problems import failure

SCOPE = {"type": "http", "method": "GET", "path": "/x", "client": ("192.0.2.1", 1)}


async def nothing_comes() -> dict:
    await asyncio.Event().wait()
    return {}


async def test_answer_that_nobody_takes(monkeypatch) -> None:
    """It is no error of the guard, whatever the framework makes of it; nothing further is sent."""
    monkeypatch.setattr(front, "SEND_SECONDS", 0.01)
    sent = []

    async def application(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.body", "body": b"x"})
        except TimeoutError as error:
            raise RuntimeError from error

    async def send(message) -> None:
        sent.append(message["type"])
        if len(sent) == 2:
            await asyncio.Event().wait()

    with capture_logs() as lines:
        await Front(application, get_logger(), failure)(dict(SCOPE), nothing_comes, send)

    assert sent == ["http.response.start", "http.response.body"]
    assert [line["event"] for line in lines] == ["request-ended"]


async def test_error_behind_the_beginning_of_an_answer() -> None:
    """There is nothing more to say to the client; the log has it."""
    sent = []

    async def application(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise LookupError

    async def send(message) -> None:
        sent.append(message["type"])

    with capture_logs() as lines:
        await Front(application, get_logger(), failure)(dict(SCOPE), nothing_comes, send)

    assert sent == ["http.response.start"]
    assert [line["event"] for line in lines] == ["request-failed", "request-ended"]


async def test_application_that_fails_before_its_answer() -> None:
    answers = []

    async def application(scope, receive, send) -> None:
        raise LookupError("secret")

    async def send(message) -> None:
        answers.append(message)

    with capture_logs() as lines:
        await Front(application, get_logger(), failure)(dict(SCOPE), nothing_comes, send)

    assert [each.get("status") for each in answers] == [500, None]
    assert b"secret" not in answers[1]["body"]
    assert [line["event"] for line in lines] == ["request-failed", "request-ended"]
