"""What the workers share beside the sockets: a log whose lines do not mix, and the rates of the applications.

Both are under locks that the kernel takes away from a process that dies.
"""

import fcntl
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import IO, TextIO, cast

from smtpguard.domain.application import Application
from smtpguard.service.rates import Bucket, Rates

_WITHIN_A_LINE, _BETWEEN_LINES = b"1", b"0"
_RECORD = struct.Struct("8sdd")  # of which application, and its bucket
_NOBODY = bytes(8)
_RECORDS = 4096
"""How many applications may have a rate: more than anybody has, with room for those of settings that are gone."""


def new_log_lock() -> IO[bytes]:
    """Return the file of the log's lock, which has no name: for ``shared_output`` here and in those that inherit it."""
    file = tempfile.TemporaryFile(prefix="smtpguard-")  # noqa: SIM115 - the caller's to close
    file.write(_BETWEEN_LINES)  # here, so that nobody needs room on the disk to write a line
    file.flush()
    return file


def new_rates_file() -> IO[bytes]:
    """Return the file of the rates, which has no name: for ``LockedFile`` here and in those that inherit it."""
    file = tempfile.TemporaryFile(prefix="smtpguard-")  # noqa: SIM115 - the caller's to close
    file.write(bytes(_RECORD.size * _RECORDS))
    file.flush()
    return file


class LockedFile:
    """A file that processes have inherited from one another, each with a lock of its own on it."""

    def __init__(self, descriptor: int) -> None:
        # Opened anew: a lock belongs to what was opened, and what was inherited was opened once for all processes.
        self.descriptor = os.open(f"/dev/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the other processes out for as long as the block."""
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)


class SharedOutput:
    """Standard output, to which several processes write: what is flushed at once stands together.

    The file of the lock says whether somebody is within a line. Who finds that ends the line of one who was killed
    there, or found the disk full, and begins one of his own.
    """

    def __init__(self, lock: LockedFile) -> None:
        self._lock = lock
        self._threads = threading.Lock()
        self._waiting: list[str] = []

    def write(self, text: str) -> int:
        """Keep text until it is flushed."""
        self._waiting.append(text)
        return len(text)

    def flush(self) -> None:
        """Write what is kept. Raises OSError."""
        with self._threads:
            waiting, self._waiting = self._waiting, []
            text = "".join(waiting).encode("utf-8", "backslashreplace")
            with self._lock.locked():
                is_torn = os.pread(self._lock.descriptor, 1, 0) == _WITHIN_A_LINE
                rest = memoryview(b"\n" + text if is_torn else text)
                os.pwrite(self._lock.descriptor, _WITHIN_A_LINE, 0)
                while rest:
                    rest = rest[os.write(sys.stdout.fileno(), rest) :]
                os.pwrite(self._lock.descriptor, _BETWEEN_LINES, 0)

    def isatty(self) -> bool:
        """Whether somebody reads it on a terminal."""
        return sys.stdout.isatty()


def shared_output(log_lock: int) -> TextIO:
    """Return standard output as the log's stream, under the lock of this file."""
    return cast("TextIO", SharedOutput(LockedFile(log_lock)))


class SharedRates(Rates):
    """Counts the messages of all workers. ``clock`` gives seconds that are the same in all of them."""

    def __init__(self, clock: Callable[[], float], file: LockedFile) -> None:
        super().__init__(clock)
        self._file = file
        self._offsets: dict[str, int] = {}

    def admits(self, application: Application) -> bool:
        """Count one message; whether it may come now. Raises OSError."""
        if not application.max_messages_per_minute:
            return True
        name, descriptor = application.name, self._file.descriptor
        with self._file.locked():
            if name not in self._offsets:
                self._offsets[name] = self._place(name)
            offset = self._offsets[name]
            key, messages, at = _RECORD.unpack(os.pread(descriptor, _RECORD.size, offset))
            if key == _key(name):
                self._buckets[name] = Bucket(messages, at)
            is_admitted = super().admits(application)
            bucket = self._buckets[name]
            os.pwrite(descriptor, _RECORD.pack(_key(name), bucket.messages, bucket.at), offset)
        return is_admitted

    def _place(self, name: str) -> int:
        """Return where an application's record is or is to be; where all are taken, that of another gives way."""
        first = int.from_bytes(_key(name), "big") % _RECORDS
        offsets: list[int] = [number * _RECORD.size for number in (*range(first, _RECORDS), *range(first))]
        takeable = (
            offset
            for offset in offsets
            if os.pread(self._file.descriptor, len(_NOBODY), offset) in (_key(name), _NOBODY)
        )
        return next(takeable, offsets[0])


def _key(name: str) -> bytes:
    return sha256(name.encode()).digest()[:8]
