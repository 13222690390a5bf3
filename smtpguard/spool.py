"""The message on its way through: its head in memory, the rest of a big one in a file that has no name.

It is in *wire form* (see ``domain.message``). What all messages hold in memory at a time comes out of one budget, and
no file is touched on the event loop.
"""

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from smtpguard.domain.message import MAX_HEADER_OCTETS, Wire, WireScan, find_header_end

CHUNK_OCTETS = 262_144
"""What is read from a file at a time, while there is memory enough."""
SHORT_OCTETS = 32_768
"""What is read from a file or written to it at a time, while memory is short."""
SHORT_ROOM_OCTETS = 131_072
"""What a message may hold in memory behind its header at first, while memory is short."""
SHORT_ABOVE = 4
"""Memory is short when more than one part in so many is in use: what is left is for many messages."""


class MemoryFullError(Exception):
    """What all messages may hold in memory is used up."""


class Spool:
    """Where messages lie, and how much memory they may take together."""

    def __init__(self, *, max_buffered_bytes: int, spool_above: int, directory: Path | None) -> None:
        self._max_buffered_bytes = max_buffered_bytes
        self._directory = directory
        self.spool_above = spool_above
        """What a message may hold in memory behind its header, while there is enough."""
        self.buffered_bytes = 0
        """What the messages hold in memory now."""

    @property
    def is_full(self) -> bool:
        """Whether there is no room to begin another message."""
        short_room = min(self.spool_above, SHORT_ROOM_OCTETS)
        return self.buffered_bytes + short_room > self._max_buffered_bytes

    @property
    def is_short(self) -> bool:
        """Whether messages should take to their files early, and go through them in small steps."""
        return self.buffered_bytes * SHORT_ABOVE > self._max_buffered_bytes

    def message(self) -> "WireMessage":
        """Return a new, empty message; it is to be closed."""
        return WireMessage(self)

    def take(self, octets: int) -> None:
        """Count octets that a message holds. Raises MemoryFullError."""
        if self.buffered_bytes + octets > self._max_buffered_bytes:
            raise MemoryFullError("no room in memory")
        self.buffered_bytes += octets

    def give_back(self, octets: int) -> None:
        """Count off what a message no longer holds."""
        self.buffered_bytes -= octets

    def open_file(self) -> IO[bytes]:
        """Open a file that is gone when it is closed. Raises OSError."""
        return tempfile.TemporaryFile(buffering=0, dir=self._directory, prefix="smtpguard-")


class WireMessage:
    """A message in wire form."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._scan = WireScan()
        self._searched = 0
        self._is_split = False
        self._tail = bytearray()
        self._file: _File | None = None
        self._filed = 0
        self._held = 0
        self.head = bytearray()
        """The header section, and all of a small message: what may be changed."""
        self.failure = ""
        """Why it was given up, for the log."""

    def __len__(self) -> int:
        return len(self.head) + self._filed + len(self._tail)

    @property
    def size(self) -> int:
        """Octets of the message without its dot-stuffing (RFC 1870 5)."""
        return len(self) - self._scan.stuffed_dots

    @property
    def is_cut(self) -> bool:
        """Whether more follows behind the head."""
        return bool(self._tail or self._filed)

    @property
    def is_at_line_start(self) -> bool:
        """Whether it is empty or ends with CRLF."""
        return self._scan.is_at_line_start

    @property
    def has_bare_line_end(self) -> bool:
        """Whether a CR or LF came that is not part of a CRLF."""
        return self._scan.has_bare_line_end

    async def append(self, chunk: bytes) -> None:
        """Add what comes next. Raises MemoryFullError, OSError; such a message can only be closed."""
        self._spool.take(len(chunk))
        self._held += len(chunk)
        self._scan.feed(chunk)
        if not self._is_split:
            self.head += chunk
            self._split_if_big()
        elif not self._tail and len(chunk) > self._room:
            await self._write(chunk)  # without another copy of it
            return
        else:
            self._tail += chunk
        if self._tail and len(self._tail) > self._room:
            tail, self._tail = self._tail, bytearray()
            await self._write(tail)

    async def chunks(self) -> AsyncGenerator[memoryview, None]:
        """Give the message piece by piece. Raises OSError."""
        yield memoryview(self.head)
        start = 0
        while self._file is not None and start < self._filed:
            buffer = self._buffer(start)
            await asyncio.to_thread(self._file.read, buffer, start)
            yield memoryview(buffer)
            start += len(buffer)
        if self._tail:
            yield memoryview(self._tail)

    def pieces(self) -> Iterator[Wire]:
        """Give the message piece by piece, in a thread. Raises OSError."""
        yield self.head
        start = 0
        while self._file is not None and start < self._filed:
            buffer = self._buffer(start)
            self._file.read(buffer, start)
            yield buffer
            start += len(buffer)
        yield self._tail

    def give_up(self, why: str) -> None:
        """Close it before its end, and note why."""
        self.failure = why
        self.close()

    def close(self) -> None:
        """Give memory and file back. Does nothing the second time; a thread that is at the file is not waited for."""
        self._give_back(self._held)
        self.head = bytearray()
        self._tail = bytearray()
        if self._file is not None:
            self._file.close()

    @property
    def _room(self) -> int:
        """How much may wait for being written: less while memory is short, and then less still once there is a file."""
        if not self._spool.is_short:
            return self._spool.spool_above
        return min(self._spool.spool_above, SHORT_OCTETS if self._filed else SHORT_ROOM_OCTETS)

    def _split_if_big(self) -> None:
        """Leave the header section in the head, and no more; without an empty line, as much of it as may be read."""
        if len(self.head) <= self._room:
            return
        end = find_header_end(self.head, self._searched)
        self._searched = len(self.head)
        if end < 0 and len(self.head) <= MAX_HEADER_OCTETS:
            return
        end = MAX_HEADER_OCTETS if end < 0 else end
        self._tail = self.head[end:]
        del self.head[end:]
        self._is_split = True

    async def _write(self, octets: Wire) -> None:
        if self._file is None:
            self._file = _File(self._spool)
        await asyncio.to_thread(self._file.write, octets)
        self._filed += len(octets)
        self._give_back(len(octets))

    def _buffer(self, start: int) -> bytearray:
        """Make room for a chunk of the file: here, because each thread would keep the memory that it asks for."""
        octets = SHORT_OCTETS if self._spool.is_short else CHUNK_OCTETS
        return bytearray(min(octets, self._filed - start))

    def _give_back(self, octets: int) -> None:
        octets = min(octets, self._held)  # nothing, if it was closed meanwhile
        self._spool.give_back(octets)
        self._held -= octets


class _File:
    """A file of a message, for threads.

    A thread may still be at it when it is closed, because nobody waits for the thread of a cancelled call; then the
    thread closes it. Otherwise its number could by then be that of another file, or of a connection.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._users = 0
        self._is_closed = False

    def write(self, octets: Wire) -> None:
        """Write at the end. Raises OSError."""
        with self._in_use() as file:
            rest = memoryview(octets)
            while rest:
                rest = rest[file.write(rest) :]

    def read(self, buffer: bytearray, start: int) -> None:
        """Fill a buffer with what stands there. Raises OSError."""
        with self._in_use() as file:
            octets = os.preadv(file.fileno(), [buffer], start)
        if octets != len(buffer):
            raise OSError("the file of a message is shorter than what was written")

    def close(self) -> None:
        """Give the file back, now or as soon as the last thread is done."""
        with self._lock:
            self._is_closed = True
            self._close_if_unused()

    @contextmanager
    def _in_use(self) -> Iterator[IO[bytes]]:
        with self._lock:
            if self._is_closed:
                raise OSError("the message was given up")
            self._users += 1
        try:
            if self._file is None:
                self._file = self._spool.open_file()
            yield self._file
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_closed and not self._users and self._file is not None:
            self._file.close()
            self._file = None
