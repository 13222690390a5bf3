"""The log: one JSON line a transaction on standard output, and one for each thing an operator should know.

``Event`` is the closed list of event names; docs/log.md explains each. No message content goes into the log.
"""

import logging
import sys
from contextlib import suppress
from enum import StrEnum
from typing import TextIO, cast

import structlog

Logger = structlog.typing.FilteringBoundLogger


class Event(StrEnum):
    """What a log line tells, in the past tense."""

    GUARD_STARTED = "guard-started"
    GUARD_STOPPED = "guard-stopped"
    SCHEMA_UPGRADED = "schema-upgraded"
    SETTINGS_RELOADED = "settings-reloaded"
    RELOAD_FAILED = "reload-failed"
    SESSION_REFUSED = "session-refused"
    SESSION_TIMED_OUT = "session-timed-out"
    SESSION_FAILED = "session-failed"
    LOGIN_FAILED = "login-failed"
    TRANSACTION_ENDED = "transaction-ended"
    TRANSACTION_CUT_OFF = "transaction-cut-off"
    TRANSACTION_FAILED = "transaction-failed"
    LEDGER_FAILED = "ledger-failed"
    TAKE_BACK_FAILED = "take-back-failed"


class _Forgiving:
    """A stream whose lines may be lost: a full disk or a closed pipe behind the log must change no reply."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(*, format_: str, level: str, stream: TextIO | None = None) -> None:
    """Set up the log of the process: ``format_`` is json, console or auto (console on a terminal)."""
    stream = stream or sys.stdout
    console = format_ == "console" or (format_ == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if console
        else [structlog.processors.dict_tracebacks, _head_first, structlog.processors.JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Forgiving(stream))),
        cache_logger_on_first_use=True,
    )
    _configure_standard_library(shared, renderer, stream)


def get_logger() -> Logger:
    """Return the logger that everybody is given."""
    logger: Logger = structlog.get_logger()
    return logger


def _head_first(
    logger: structlog.typing.WrappedLogger, method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Begin each line with what it is about, for whoever reads it without a tool."""
    del logger, method
    return {key: line[key] for key in ("timestamp", "level", "event")} | dict(line)


def _configure_standard_library(
    shared: list[structlog.typing.Processor], renderer: list[structlog.typing.Processor], stream: TextIO
) -> None:
    """Bring warnings of libraries into the same log, and silence aiosmtpd, which logs addresses and bodies."""
    handler = logging.StreamHandler(stream)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, *renderer])
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    silence_aiosmtpd()


def silence_aiosmtpd() -> None:
    """Switch ``mail.log`` off, whatever else is configured."""
    logger = logging.getLogger("mail.log")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False
