"""The log: one JSON line a transaction on standard output, and one for each thing an operator should know.

``Event`` is the closed list of event names; docs/log.md explains each. No message content goes into the log. Nobody
who logs waits for a disk or a reader: a thread writes.
"""

import atexit
import json
import logging
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from time import time_ns
from typing import TextIO, cast

import orjson

from smtpguard.lean_import import without

with without("rich", "greenlet"):  # four megabytes, for tracebacks and threads that nobody asks of it
    import structlog

Logger = structlog.typing.FilteringBoundLogger

MAX_WAITING_CHARACTERS = 8_388_608
"""What may wait to be written: some ten thousand lines."""
GATHER_SECONDS = 0.05
"""How long lines gather after some were written, so that a busy guard writes many at a time."""
LAST_SECONDS = 3.0
"""How long the end of the process waits for a log that takes nothing."""


# Without the values of variables: they are messages, passwords and tokens.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


class Event(StrEnum):
    """What a log line tells, in the past tense."""

    GUARD_STARTED = "guard-started"
    GUARD_STOPPED = "guard-stopped"
    WORKER_STARTED = "worker-started"
    WORKER_DIED = "worker-died"
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
    OWNER_CHANGED = "owner-changed"
    FLAG_FAILED = "flag-failed"
    LEDGER_FAILED = "ledger-failed"
    TAKE_BACK_FAILED = "take-back-failed"
    QUARANTINE_EXPIRING = "quarantine-expiring"
    QUARANTINE_EXPIRED = "quarantine-expired"
    HOUSEKEEPING_FAILED = "housekeeping-failed"
    INVITATIONS_OFF = "invitations-off"
    INVITATION_SENT = "invitation-sent"
    INVITATION_FAILED = "invitation-failed"
    INVITATION_SKIPPED = "invitation-skipped"
    RENEWALS_INVITED = "renewals-invited"
    INVITATION_ANSWERED = "invitation-answered"
    CONFIRMED_MAIL_RELEASED = "confirmed-mail-released"
    LOG_LINES_LOST = "log-lines-lost"
    REQUEST_ENDED = "request-ended"
    REQUEST_FAILED = "request-failed"


logged_events: Counter[str] = Counter()
"""How often each event has been logged, as far as the level lets it; of this process, as its log is."""


class LogStream:
    """A stream for lines that a thread writes to another: whoever hangs behind that one holds up nobody here.

    A line that finds no room to wait, or cannot be written, is lost. It is counted, and the number is logged as soon as
    lines can be written again.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: list[str] = []
        self._characters = 0
        self._lost = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Take a line, to be written soon."""
        with self._lock:
            is_full = self._characters + len(line) > MAX_WAITING_CHARACTERS
            if is_full and threading.current_thread() is not self._thread:  # which tells how many were lost
                self._lost += 1
                return
            self._waiting.append(line)
            self._characters += len(line)
            if len(self._waiting) == 1:
                self._changed.notify()

    def flush(self) -> None:
        """Do nothing: nobody waits before the end of the process."""

    def close(self) -> None:
        """Write what waits, for LAST_SECONDS at most."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        while lines := self._next_lines():
            self._write_out(lines)
            self._closing.wait(GATHER_SECONDS)

    def _next_lines(self) -> list[str]:
        """Wait for lines; there are none when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            lines, self._waiting, self._characters = self._waiting, [], 0
            return lines

    def _write_out(self, lines: list[str]) -> None:
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except Exception:  # noqa: BLE001 - a full disk, a closed pipe or whatever else: the thread goes on
            with self._changed:
                self._lost += len(lines)
        else:
            self._tell_of_losses()

    def _tell_of_losses(self) -> None:
        with self._changed:
            lost, self._lost = self._lost, 0
        if lost:
            get_logger().error(Event.LOG_LINES_LOST, lines=lost)


def configure_logging(*, format_: str, level: str, stream: TextIO | None = None) -> None:
    """Set up the log of the process: ``format_`` is json, console or auto (console on a terminal).

    What was logged is written at the end of the process at the latest.
    """
    stream = stream or _standard_output()
    console = format_ == "console" or (format_ == "auto" and stream.isatty())
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [_render_json]
    )
    log_stream = LogStream(stream)
    atexit.register(log_stream.close)
    structlog.configure(
        processors=[_count, _begin, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", log_stream)),
    )
    _configure_standard_library(renderer, log_stream)


def _standard_output() -> TextIO:
    """Return standard output as a stream of our own.

    Python flushes ``sys.stdout`` when it ends, and aborts where a thread hangs in it.
    """
    return open(sys.stdout.fileno(), "w", encoding=sys.stdout.encoding, errors="backslashreplace", closefd=False)


def get_logger() -> Logger:
    """Return the logger that everybody is given; the log is to be configured before."""
    logger: Logger = structlog.get_logger().bind()  # bound here once, and not at each line
    return logger


def silent_logger() -> Logger:
    """Return a logger that says nothing, for commands, which say themselves what became of them."""
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    logger: Logger = structlog.wrap_logger(structlog.ReturnLogger(), processors=[], wrapper_class=silent).bind()
    return logger


def _count(
    logger: structlog.typing.WrappedLogger, method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    del logger, method
    logged_events[line["event"]] += 1
    return line


def _begin(
    logger: structlog.typing.WrappedLogger, method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Put in front of a line what it is about, for whoever reads it without a tool."""
    del logger
    seconds, rest = divmod(time_ns(), 1_000_000_000)
    return {"timestamp": f"{_second(seconds)}.{rest // 1000:06}Z", "level": method, "event": line["event"], **line}


@lru_cache(2)  # it changes once a second, and takes longer to write than all the rest
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _render_json(logger: structlog.typing.WrappedLogger, method: str, line: structlog.typing.EventDict) -> str:
    """Render a line as ASCII, with its traceback where there is one."""
    if "exc_info" in line:
        line = _TRACEBACKS(logger, method, line)
    try:
        rendered = orjson.dumps(line, default=str)
    except TypeError:  # half of a surrogate pair, for one
        return _render_slowly(line)
    # What orjson leaves as it is, others escape.
    is_harmless = rendered.isascii() and 0x7F not in rendered
    return rendered.decode("ascii") if is_harmless else _render_slowly(line)


def _render_slowly(line: structlog.typing.EventDict) -> str:
    return json.dumps(line, default=str, separators=(",", ":"))


def _configure_standard_library(renderer: list[structlog.typing.Processor], stream: LogStream) -> None:
    """Bring warnings of libraries into the same log, and silence aiosmtpd, which logs addresses and bodies."""
    handler = logging.StreamHandler(stream)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=[_begin], processors=[remove_meta, *renderer])
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
