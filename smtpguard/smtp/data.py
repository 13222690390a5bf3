"""Read a message: DATA up to the final dot, BDAT by the octet; in chunks, in bounded memory whatever comes.

A message that cannot be kept is read to its end all the same, and refused then.
"""

import asyncio
from collections.abc import Callable

from smtpguard.domain.message import DotRewriter, LineFeedRewriter
from smtpguard.domain.reply import R452_STORE_FULL, R550_BARE_LINE_END, R552_TOO_BIG, Reply
from smtpguard.spool import MemoryFullError, WireMessage

CHUNK_OCTETS = 65_536
_END = b"\r\n.\r\n"

OnProgress = Callable[[int], None]
"""Is told how many octets came in, each time."""


class ConnectionEndedError(ConnectionError):
    """The connection ended within the message."""


class Intake:
    """A message that is coming in, for as long as it can be kept. ``normalizes``: a bare LF ends a line."""

    def __init__(self, message: WireMessage, *, limit: int, normalizes: bool = False) -> None:
        self._message = message
        self._limit = limit
        self._line_feeds = LineFeedRewriter() if normalizes else None
        self.refusal: Reply | None = None
        """Why it is not kept any more."""

    async def append(self, wire: bytes) -> None:
        """Add octets of the wire form; those of a message that is refused are dropped."""
        if self.refusal is not None:
            return
        if self._line_feeds is not None:
            wire = self._line_feeds.rewrite(wire)
            if self._line_feeds.is_ambiguous:
                self._refuse(R550_BARE_LINE_END, "a line is a dot that ends with a bare LF")
                return
        if len(self._message) + len(wire) > self._limit:
            self._refuse(R552_TOO_BIG, f"the message has more than {self._limit} octets")
            return
        try:
            await self._message.append(wire)
        except (MemoryFullError, OSError) as error:
            self._refuse(R452_STORE_FULL, f"the message cannot be held: {error}")

    def _refuse(self, reply: Reply, why: str) -> None:
        self.refusal = reply
        self._message.give_up(why)


class ChunkedIntake(Intake):
    """A message that comes by BDAT (RFC 3030), where dots are not stuffed and chunks end anywhere."""

    def __init__(self, message: WireMessage, *, limit: int, normalizes: bool = False) -> None:
        super().__init__(message, limit=limit, normalizes=normalizes)
        self._stuffing = DotRewriter(stuffs=True)

    async def append_content(self, content: bytes) -> None:
        """Add octets of the message itself."""
        await self.append(self._stuffing.rewrite(content))

    async def end(self) -> None:
        """End the last line, as DATA cannot but do."""
        if not self._message.is_at_line_start:
            await self.append(b"\r\n")


async def read_data(
    reader: asyncio.StreamReader,
    message: WireMessage,
    *,
    limit: int,
    on_progress: OnProgress,
    normalizes: bool = False,
) -> Reply | None:
    """Read up to the final dot (RFC 5321 4.1.1.4) into the message, without that dot; return a refusal, or None.

    Bytes behind the dot stay with the reader. ``limit`` is in octets of the wire form. Raises ConnectionEndedError.
    """
    intake = Intake(message, limit=limit, normalizes=normalizes)
    # A line end in front lets a dot in the very first line be found like any other.
    window, begin = b"\r\n", 2
    while True:
        window += await _read(reader, CHUNK_OCTETS, on_progress)
        end = window.find(_END)
        if end >= 0:  # before anything is awaited: the session looks there for what comes behind the message
            _give_back(reader, window[end + len(_END) :])
            window = window[: end + 2]
        cut = len(window) - len(_END) + 1 if end < 0 else len(window)  # the end may have begun
        if cut > begin or end >= 0:
            content, window, begin = window[begin:cut], window[cut:], 0
            await intake.append(content)
        if end >= 0:
            return intake.refusal


async def read_chunk(
    reader: asyncio.StreamReader, octets: int, intake: ChunkedIntake | None, *, last: bool, on_progress: OnProgress
) -> Reply | None:
    """Read what follows a BDAT command (RFC 3030), all of it whatever becomes of it; return a refusal, or None.

    Without an ``intake`` it is thrown away. One intake takes all chunks of a message; a refusal stands for those that
    follow. Raises ConnectionEndedError.
    """
    while octets:
        content = await _read(reader, min(octets, CHUNK_OCTETS), on_progress)
        octets -= len(content)
        if intake is not None:
            await intake.append_content(content)
    if intake is None:
        return None
    if last:
        await intake.end()
    return intake.refusal


async def _read(reader: asyncio.StreamReader, octets: int, on_progress: OnProgress) -> bytes:
    chunk = await reader.read(octets)
    if not chunk:
        raise ConnectionEndedError
    on_progress(len(chunk))
    return chunk


def _give_back(reader: asyncio.StreamReader, rest: bytes) -> None:
    """Put what was read too far in front of what the reader holds. It has no public way to do this.

    aiosmtpd, too, reaches into this attribute; tests show that it is still there.
    """
    if rest:
        reader._buffer[:0] = rest  # type: ignore[attr-defined] # noqa: SLF001
