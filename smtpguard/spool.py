"""The message on its way through: its head in memory, the rest of a big one in a file that has no name.

It is in *wire form* (see ``domain.message``). What all messages hold in memory at a time comes out of one budget.
"""

import tempfile
from pathlib import Path
from typing import IO

CHUNK_OCTETS = 131_072


class MemoryFullError(Exception):
    """What all messages may hold in memory is used up."""


class Spool:
    """Where messages lie, and how much memory they may take together."""

    def __init__(self, *, max_buffered_bytes: int, spool_above: int, directory: Path | None) -> None:
        self._max_buffered_bytes = max_buffered_bytes
        self._spool_above = spool_above
        self._directory = directory
        self.buffered_bytes = 0
        """What the messages hold in memory now."""

    @property
    def is_full(self) -> bool:
        """Whether there is no room to begin another message."""
        return self.buffered_bytes + self._spool_above > self._max_buffered_bytes

    def message(self) -> "WireMessage":
        """Return a new, empty message; it is to be closed."""
        return WireMessage(self, spool_above=self._spool_above)

    def take(self, octets: int) -> None:
        """Count octets that a message holds; raise MemoryFullError."""
        if self.buffered_bytes + octets > self._max_buffered_bytes:
            raise MemoryFullError
        self.buffered_bytes += octets

    def give_back(self, octets: int) -> None:
        """Count off what a message no longer holds."""
        self.buffered_bytes -= octets

    def file(self) -> IO[bytes]:
        """Open a file that is gone with its last reader. Raises OSError."""
        return tempfile.TemporaryFile(dir=self._directory, prefix="smtpguard-")


class WireMessage:
    """A message in wire form."""

    def __init__(self, spool: Spool, *, spool_above: int) -> None:
        self._spool = spool
        self._spool_above = spool_above
        self._file: IO[bytes] | None = None
        self._held = 0
        self._tail_octets = 0
        self.head = bytearray()
        """The header section and what follows it, all of a small message: what may be changed."""

    def __len__(self) -> int:
        return len(self.head) + self._tail_octets
