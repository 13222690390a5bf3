"""What an application has sent and the session has not read yet."""

import asyncio
from collections import deque

HIGH_WATER_OCTETS = 65_536
"""So much may lie here unread before the application is kept from sending more."""
HIGH_WATER_PIECES = 1024
"""And in so many pieces, because a piece of one octet takes as much memory as one of forty."""
QUIT = b"QUIT\r\n"


class Input:
    """The octets that came in, in the pieces in which they came, for one reader. It reads like a StreamReader."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._has_ended = False
        self._last = b""
        self._news: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_paused = False

    @property
    def pending(self) -> bytes:
        """What lies here now."""
        return b"".join(self._pieces)

    @property
    def last_is_quit(self) -> bool:
        """Whether the last that came is a QUIT, read or not."""
        return self._last.upper() == QUIT

    def come_from(self, transport: asyncio.Transport) -> None:
        """Say where it comes from, and can be held back."""
        self._transport = transport
        self._is_paused = False

    def feed_data(self, data: bytes) -> None:
        """Add what came in."""
        self._pieces.append(data)
        self._size += len(data)
        self._last = data[-len(QUIT) :] if len(data) >= len(QUIT) else (self._last + data)[-len(QUIT) :]
        if self._size > HIGH_WATER_OCTETS or len(self._pieces) > HIGH_WATER_PIECES:
            self._hold_back_if_much()
        self._wake()

    def feed_eof(self) -> None:
        """Note that no more will come."""
        self._has_ended = True
        self._wake()

    def give_back(self, octets: bytes) -> None:
        """Put what was read too far in front of what lies here."""
        if octets:
            self._pieces.appendleft(octets)
            self._size += len(octets)

    def take(self) -> bytes:
        """Return all that lies here; what comes from now on may be for somebody else."""
        octets = self.pending
        self._pieces.clear()
        self._size = 0
        self._hold_back_if_much()
        return octets

    async def line(self, limit: int) -> bytes | None:
        """Return the next line with its LF; None for one of more than ``limit`` octets, which is read to its end.

        Raises IncompleteReadError where the input ends before.
        """
        line = b""
        is_too_long = False
        while not line.endswith(b"\n"):
            while not self._pieces:
                if self._has_ended:
                    raise asyncio.IncompleteReadError(line, None)
                await self._more()
            line += self._first(self._pieces[0].find(b"\n") + 1 or -1)
            if len(line) > limit:
                line, is_too_long = line[-1:], True
        return None if is_too_long else line

    async def read(self, octets: int = -1) -> bytes:
        """Return what comes next, but no more than so many octets. ``b""``: it has ended."""
        while not self._pieces:
            if self._has_ended:
                return b""
            await self._more()
        return self._first(octets)

    async def readexactly(self, octets: int) -> bytes:
        """Return so many octets. Raises IncompleteReadError where the input ends before."""
        taken = b""
        while len(taken) < octets:
            piece = await self.read(octets - len(taken))
            if not piece:
                raise asyncio.IncompleteReadError(taken, octets)
            taken += piece
        return taken

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Return the next line, for the reader of PROXY headers. Raises IncompleteReadError, LimitOverrunError."""
        line = await self.line(HIGH_WATER_OCTETS)
        if separator != b"\n" or line is None:
            raise asyncio.LimitOverrunError("the line is too long", 0)
        return line

    def _more(self) -> asyncio.Future[None]:
        """Return what is done as soon as something has come, or the end. One reader waits at a time."""
        self._news = self._loop.create_future()
        return self._news

    def _first(self, octets: int) -> bytes:
        """Take so many octets of the first piece, or all of it."""
        piece = self._pieces.popleft()
        if 0 <= octets < len(piece):
            self._pieces.appendleft(piece[octets:])
            piece = piece[:octets]
        self._size -= len(piece)
        if self._is_paused:
            self._hold_back_if_much()
        return piece

    def _hold_back_if_much(self) -> None:
        """Keep the application from sending more, or no longer: one that is held back is not seen to leave."""
        is_much = self._size > HIGH_WATER_OCTETS or len(self._pieces) > HIGH_WATER_PIECES
        if is_much is self._is_paused or self._transport is None:
            return
        self._is_paused = is_much
        if is_much:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
