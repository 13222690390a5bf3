"""The log."""

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TextIO

import pytest

from smtpguard.telemetry import (
    LAST_SECONDS,
    MAX_WAITING_CHARACTERS,
    Event,
    configure_logging,
    get_logger,
    logged_events,
)
from tests.support.eventually import eventually
from tests.support.process import run


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


async def lines(stream: io.StringIO) -> list[dict]:
    """What was logged so far; a thread writes it."""
    logging.getLogger("end").critical("the end")
    await eventually(lambda: "the end" in stream.getvalue())
    return [json.loads(line) for line in stream.getvalue().splitlines()][:-1]


@pytest.mark.parametrize("text", ["a\nb\x1b[31m", "\x00", "\x7f", "\x9f", "\u2028", "\udcff"], ids=ascii)
async def test_one_json_object_a_line(stream, text) -> None:
    """Whatever it holds, it is one line of printable ASCII."""
    configure_logging(format_="auto", level="info", stream=stream)
    get_logger().info(Event.TRANSACTION_ENDED, reverse_path=text, recipients=[{"recipient": "ä@b.example"}])
    (line,) = await lines(stream)

    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])) < timedelta(minutes=1)
    assert (line["level"], line["event"], line["reverse_path"]) == ("info", "transaction-ended", text)
    assert line["recipients"] == [{"recipient": "ä@b.example"}]
    assert all(" " <= character <= "~" for character in stream.getvalue().replace("\n", ""))
    assert stream.getvalue().count("\n") == 2


async def test_level(stream) -> None:
    configure_logging(format_="json", level="warning", stream=stream)
    get_logger().info(Event.GUARD_STARTED)
    get_logger().warning(Event.SESSION_REFUSED)

    assert [line["event"] for line in await lines(stream)] == ["session-refused"]


async def test_console_format(stream) -> None:
    configure_logging(format_="console", level="info", stream=stream)
    get_logger().info(Event.GUARD_STARTED, version="1")
    await eventually(lambda: "version=1" in stream.getvalue())

    assert "guard-started" in stream.getvalue()


@pytest.mark.parametrize("format_", ["json", "console"])
async def test_traceback_tells_no_values(stream, format_) -> None:
    """They are messages, passwords and tokens. Library code logs tracebacks, too."""
    configure_logging(format_=format_, level="info", stream=stream)
    secret = "".join(reversed("drowssap"))
    try:
        raise ValueError
    except ValueError as error:
        get_logger().error(Event.REQUEST_FAILED, exc_info=error)
        logging.getLogger("library").exception("failed")
    logging.getLogger("end").critical("the end")
    await eventually(lambda: "the end" in stream.getvalue())

    assert stream.getvalue().count("ValueError") >= 2
    assert secret not in stream.getvalue()


async def test_events_are_counted(stream) -> None:
    """As far as the level lets them through, and with no words of libraries."""
    configure_logging(format_="json", level="info", stream=stream)
    before = logged_events.copy()
    get_logger().info(Event.GUARD_STARTED)
    get_logger().debug(Event.GUARD_STOPPED)
    logging.getLogger("library").warning("anna@customer.example")

    assert logged_events - before == {"guard-started": 1}


async def test_traceback_is_part_of_the_line(stream) -> None:
    configure_logging(format_="json", level="info", stream=stream)
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        get_logger().error(Event.SESSION_FAILED, exc_info=error)
    (line,) = await lines(stream)

    assert line["exception"][0]["exc_value"] == "boom"


async def test_warnings_of_libraries_are_in_the_same_form(stream) -> None:
    configure_logging(format_="json", level="info", stream=stream)
    logging.getLogger("asyncio").warning("something %s", "odd")
    logging.getLogger("asyncio").info("nothing")
    (line,) = await lines(stream)

    assert (line["level"], line["event"]) == ("warning", "something odd")


async def test_aiosmtpd_logs_neither_addresses_nor_bodies(stream) -> None:
    configure_logging(format_="json", level="debug", stream=stream)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger("mail.log").log(level, "RCPT TO:<alice@verified.example>")

    assert await lines(stream) == []


# What hangs or fails behind the log


class Disk(io.StringIO):
    """A disk that may be full."""

    full = True
    refused = ""

    def write(self, text: str) -> int:
        if self.full:
            self.refused += text
            raise OSError(28, "No space left on device")
        return super().write(text)


async def test_log_that_cannot_be_written_stops_nothing_and_is_counted() -> None:
    """A full disk or a closed pipe behind the log must change no reply; how much is missing is told afterwards."""
    disk = Disk()
    configure_logging(format_="json", level="info", stream=disk)
    for _ in range(3):
        get_logger().info(Event.GUARD_STARTED)
    await eventually(lambda: disk.refused.count("\n") == 3)
    disk.full = False
    get_logger().info(Event.GUARD_STOPPED)
    await eventually(lambda: "log-lines-lost" in disk.getvalue())

    stopped, lost = map(json.loads, disk.getvalue().splitlines())
    assert (stopped["event"], lost["event"], lost["level"], lost["lines"]) == (
        "guard-stopped",
        "log-lines-lost",
        "error",
        3,
    )


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe that nobody reads yet: its end, and the stream into it."""
    reading, writing = os.pipe()
    into = os.fdopen(writing, "w", encoding="ascii")
    yield reading, into
    os.close(reading)
    with contextlib.suppress(OSError):
        into.close()


async def read_until(words: str, reading: int) -> list[str]:
    """Read whole lines until the last of them holds these words."""
    text = ""
    while words not in text or not text.endswith("\n"):
        text += (await asyncio.to_thread(os.read, reading, 1_000_000)).decode("ascii")
    return text.splitlines()


async def test_reader_that_hangs_holds_up_nobody(pipe) -> None:
    """What a pipe does not take waits until somebody reads, in its order."""
    reading, into = pipe
    configure_logging(format_="json", level="info", stream=into)
    for number in range(1000):
        get_logger().info(Event.GUARD_STARTED, number=number, filler="x" * 1000)
    get_logger().info(Event.GUARD_STOPPED)

    *lines, _ = await read_until("guard-stopped", reading)
    assert [json.loads(line)["number"] for line in lines] == list(range(1000))


async def test_lines_that_find_no_room_to_wait_are_counted(pipe) -> None:
    """What waits is bounded; none is lost unseen."""
    reading, into = pipe
    configure_logging(format_="json", level="info", stream=into)
    written = 2 * MAX_WAITING_CHARACTERS // 10_000
    for number in range(written):
        get_logger().info(Event.GUARD_STARTED, number=number, filler="x" * 10_000)

    lines = [json.loads(line) for line in await read_until("log-lines-lost", reading)]
    numbers = [line["number"] for line in lines if "number" in line]
    (lost,) = [line["lines"] for line in lines if line["event"] == "log-lines-lost"]
    assert numbers == list(range(len(numbers)))
    assert (len(numbers) + lost, lost > 0) == (written, True)


LOG_AND_END = """
from smtpguard.telemetry import Event, configure_logging, get_logger, logged_events
configure_logging(format_="json", level="info")
for number in range(5000):
    get_logger().info(Event.GUARD_STARTED, number=number)
raise SystemExit(7)
"""


async def test_all_is_written_at_the_end_of_the_process() -> None:
    code, out, err = await run(sys.executable, "-c", LOG_AND_END)

    assert (code, err) == (7, "")
    assert [json.loads(line)["number"] for line in out.splitlines()] == list(range(5000))


async def test_process_ends_though_nobody_reads_its_log(pipe) -> None:
    """In good order: with its own exit code."""
    _, into = pipe
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOG_AND_END, stdout=into, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(10 * LAST_SECONDS):
        _, err = await process.communicate()

    assert (process.returncode, err) == (7, b"")
