"""The log."""

import io
import json
import logging

import pytest

from smtpguard.telemetry import Event, configure_logging, get_logger


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_json_object_a_line(stream) -> None:
    configure_logging(format_="auto", level="info", stream=stream)
    get_logger().info(Event.TRANSACTION_ENDED, reverse_path="a\nb\x1b[31m", recipients=[{"recipient": "ä@b.example"}])
    (line,) = lines(stream)

    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["level"], line["event"], line["reverse_path"]) == ("info", "transaction-ended", "a\nb\x1b[31m")
    assert stream.getvalue().isascii()
    assert stream.getvalue().count("\n") == 1


def test_level(stream) -> None:
    configure_logging(format_="json", level="warning", stream=stream)
    get_logger().info(Event.GUARD_STARTED)
    get_logger().warning(Event.SESSION_REFUSED)

    assert [line["event"] for line in lines(stream)] == ["session-refused"]


def test_console_format(stream) -> None:
    configure_logging(format_="console", level="info", stream=stream)
    get_logger().info(Event.GUARD_STARTED, version="1")

    assert "guard-started" in stream.getvalue()
    assert "version=1" in stream.getvalue()


def test_traceback_is_part_of_the_line(stream) -> None:
    configure_logging(format_="json", level="info", stream=stream)
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        get_logger().error(Event.SESSION_FAILED, exc_info=error)
    (line,) = lines(stream)

    assert line["exception"][0]["exc_value"] == "boom"


def test_warnings_of_libraries_are_in_the_same_form(stream) -> None:
    configure_logging(format_="json", level="info", stream=stream)
    logging.getLogger("asyncio").warning("something %s", "odd")
    logging.getLogger("asyncio").info("nothing")
    (line,) = lines(stream)

    assert (line["level"], line["event"]) == ("warning", "something odd")


def test_aiosmtpd_logs_neither_addresses_nor_bodies(stream) -> None:
    configure_logging(format_="json", level="debug", stream=stream)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger("mail.log").log(level, "RCPT TO:<alice@verified.example>")

    assert lines(stream) == []


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_log_that_cannot_be_written_stops_nothing() -> None:
    """A full disk or a closed pipe behind the log must change no reply."""
    configure_logging(format_="json", level="info", stream=FullDisk())
    get_logger().info(Event.TRANSACTION_ENDED)
