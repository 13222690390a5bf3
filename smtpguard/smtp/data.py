"""Read a message: in chunks, into one buffer, bounded whatever comes."""

import asyncio
from collections.abc import Callable

CHUNK_OCTETS = 262_144
_END = b"\r\n.\r\n"


class ConnectionEndedError(ConnectionError):
    """The connection ended within the message."""


async def read_data(reader: asyncio.StreamReader, *, limit: int, on_progress: Callable[[], None]) -> bytearray | None:
    """Read up to the final dot (RFC 5321 4.1.1.4) and return the message in wire form, without that dot.

    Bytes behind the dot stay with the reader. ``on_progress`` is called for each chunk that came in. A message of more
    than ``limit`` octets is read to its end, in bounded memory, and is None. Raises ConnectionEndedError.
    """
    # A line end in front lets a dot in the very first line be found like any other.
    buffer = bytearray(b"\r\n")
    too_big = False
    while True:
        chunk = await reader.read(CHUNK_OCTETS)
        if not chunk:
            raise ConnectionEndedError
        on_progress()
        searched = max(0, len(buffer) - len(_END) + 1)
        buffer += chunk
        end = buffer.find(_END, searched)
        if end >= 0:
            _give_back(reader, bytes(buffer[end + len(_END) :]))
            too_big = too_big or end > limit
            del buffer[end + 2 :]
            del buffer[:2]
            return None if too_big else buffer
        if too_big or len(buffer) > limit + len(_END):
            too_big = True
            del buffer[: -len(_END) + 1]


def _give_back(reader: asyncio.StreamReader, rest: bytes) -> None:
    """Put what was read too far in front of what the reader holds. It has no public way to do this.

    aiosmtpd, too, reaches into this attribute; tests show that it is still there.
    """
    if rest:
        reader._buffer[:0] = rest  # type: ignore[attr-defined] # noqa: SLF001
