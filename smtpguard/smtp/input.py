"""What an application has sent and the session has not read yet."""

import asyncio

HIGH_WATER_OCTETS = 65_536
"""So much may lie here unread before the application is kept from sending more."""
QUIT = b"QUIT\r\n"


class Input:
    """The octets that came in, for one reader. It reads like a StreamReader.

    They lie in one piece: mostly it is a packet, and a command. To join packets that nobody reads costs little, as no
    more than HIGH_WATER_OCTETS lie here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._new_future = loop.create_future
        self._has_ended = False
        self._last = b""
        self._news: asyncio.Future[None] | None = None
        """There while a reader waits."""
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self.pending = b""
        """What lies here now."""

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
        self.pending = pending = self.pending + data if self.pending else data
        self._last = pending[-len(QUIT) :]  # what is read already ended with a line
        if len(pending) > HIGH_WATER_OCTETS:
            self._hold_back_if_much()
        if self._news is not None:
            self._wake()

    def feed_eof(self) -> None:
        """Note that no more will come."""
        self._has_ended = True
        if self._news is not None:
            self._wake()

    def give_back(self, octets: bytes) -> None:
        """Put what was read too far in front of what lies here."""
        if octets:
            self.pending = octets + self.pending

    def take(self) -> bytes:
        """Return all that lies here; what comes from now on may be for somebody else."""
        return self._first(len(self.pending))

    async def line(self, limit: int) -> bytes | None:
        """Return the next line with its LF; None for one of more than ``limit`` octets, which is read to its end.

        Raises IncompleteReadError where the input ends before.
        """
        is_too_long = False
        while not (end := self.pending.find(b"\n") + 1):
            if len(self.pending) > limit:
                self.take()
                is_too_long = True
            if self._has_ended:
                raise asyncio.IncompleteReadError(self.take(), None)
            self._news = self._new_future()
            await self._news
        line = self._first(end)
        return None if is_too_long or end > limit else line

    async def read(self, octets: int = HIGH_WATER_OCTETS) -> bytes:
        """Return what comes next, but no more than so many octets. ``b""``: it has ended."""
        while not self.pending and not self._has_ended:
            self._news = self._new_future()
            await self._news
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

    def _first(self, octets: int) -> bytes:
        """Take no more than the first so many octets."""
        pending = self.pending
        self.pending = pending[octets:]
        if self._is_paused:
            self._hold_back_if_much()
        return pending[:octets]

    def _hold_back_if_much(self) -> None:
        """Keep the application from sending more, or no longer: one that is held back is not seen to leave."""
        is_much = len(self.pending) > HIGH_WATER_OCTETS
        if is_much is self._is_paused or self._transport is None:
            return
        self._is_paused = is_much
        if is_much:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _wake(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)
