"""Read a message: DATA up to the final dot, BDAT by the octet; in chunks, in bounded memory whatever comes.

A message that cannot be kept is read to its end all the same, and refused then.
"""

from collections.abc import Callable

from smtpguard.domain.message import DotRewriter, LineFeedRewriter
from smtpguard.domain.reply import R452_STORE_FULL, R550_BARE_LINE_END, R552_TOO_BIG, Reply
from smtpguard.smtp.input import Input
from smtpguard.spool import MemoryFullError, WireMessage

CHUNK_OCTETS = 262_144
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
        self._octets = 0
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
        self._octets += len(wire)
        if self._octets > self._limit:
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
    reader: Input,
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
    window, begin = b"\r\n" + await _read(reader, CHUNK_OCTETS, on_progress), 2
    while (end := _find_end(window)) < 0:
        cut = len(window) - _begun(window)
        if cut > begin:
            await intake.append(window[begin:cut] if begin or cut < len(window) else window)
            window, begin = window[cut:], 0
        chunk = await _read(reader, CHUNK_OCTETS, on_progress)
        window = window + chunk if window else chunk
    reader.give_back(window[end + len(_END) :])  # before anything is awaited: the session looks there
    await intake.append(window[begin : end + 2])
    return intake.refusal


def _find_end(window: bytes) -> int:
    """Return where the first end of a message stands; mostly one at most is there, as rfind sees in half the time."""
    last = window.rfind(_END)
    return last if last < 0 or window.rfind(_END, 0, last + len(_END) - 1) < 0 else window.find(_END)


def _begun(window: bytes) -> int:
    """Return how many octets at the end may be the beginning of the end of the message."""
    return next((octets for octets in range(len(_END) - 1, 0, -1) if window.endswith(_END[:octets])), 0)


async def read_chunk(
    reader: Input, octets: int, intake: ChunkedIntake | None, *, last: bool, on_progress: OnProgress
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


async def _read(reader: Input, octets: int, on_progress: OnProgress) -> bytes:
    chunk = await reader.read(octets)
    if not chunk:
        raise ConnectionEndedError
    on_progress(len(chunk))
    return chunk
