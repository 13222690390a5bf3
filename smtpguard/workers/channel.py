"""What supervisor and worker say to each other, over a socket that nobody else has.

The supervisor gives an order and the worker answers it, one after the other. The end of the channel is the order to
end, so that a worker ends also when its supervisor was killed.
"""

import asyncio
import pickle
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

from smtpguard.settings import Settings

_LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Begin:
    """Serve. The numbers are those of files that the worker was started with."""

    settings: Settings
    sockets: tuple[tuple[int, bool], ...]
    """Of SMTP, each with whether it begins with TLS."""
    web_sockets: tuple[int, ...]
    page_sockets: tuple[int, ...]
    log_lock: int
    rates: int
    metrics: str
    """A directory."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Take over the applications, the policy and all certificates."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class Ping:
    """Say that you are alive."""


@dataclass(frozen=True, slots=True)
class Answer:
    """It is done, or ``error`` says why it is not."""

    error: str | None = None


Message = Begin | Reload | Ping | Answer


class Channel:
    """One end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        """Take over one end of a pair of sockets."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def send(self, message: Message) -> None:
        """Send it, or do nothing where the other end is gone."""
        octets = pickle.dumps(message)
        with suppress(OSError):
            self._writer.write(_LENGTH.pack(len(octets)) + octets)
            await self._writer.drain()

    async def receive(self) -> Message | None:
        """Return what comes next, None at the end of the channel."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            message: Message = pickle.loads(await self._reader.readexactly(length))  # noqa: S301 - no stranger has it
        except (OSError, asyncio.IncompleteReadError):
            return None
        return message

    def close(self) -> None:
        """End the channel."""
        self._writer.close()
