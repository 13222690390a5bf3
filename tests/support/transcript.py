"""A client that speaks SMTP line by line, so that a test reads like a transcript."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase

TIMEOUT = 20.0


class Transcript:
    """One connection. ``send`` lines, ``expect`` replies; every wait is bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *lines: str) -> None:
        """Send lines in one packet, CRLF added."""
        await self.send_octets("".join(f"{line}\r\n" for line in lines).encode("utf-8"))

    async def send_octets(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    async def reply(self) -> str:
        """Return one reply; the lines of a multi-line reply are joined by a line feed."""
        lines = []
        while True:
            async with asyncio.timeout(TIMEOUT):
                line = (await self.reader.readuntil(b"\r\n")).decode("ascii").removesuffix("\r\n")
            lines.append(line)
            if line[3:4] != "-":
                return "\n".join(lines)

    async def expect(self, *patterns: str) -> str:
        """Read one reply for each pattern (shell style) and compare; return the last."""
        said = ""
        for pattern in patterns:
            said = await self.reply()
            assert fnmatchcase(said, pattern), f"expected {pattern!r}, got {said!r}"
        return said

    async def ask(self, line: str, pattern: str) -> str:
        await self.send(line)
        return await self.expect(pattern)

    async def hello(self) -> None:
        await self.expect("220 *")
        await self.ask("EHLO app.example", "250-*")

    async def envelope(self, *recipients: str, sender: str = "billing@shop.example") -> None:
        """Begin a transaction in which every recipient is answered 250."""
        await self.ask(f"MAIL FROM:<{sender}>", "250 *")
        for recipient in recipients:
            await self.ask(f"RCPT TO:<{recipient}>", "250 *")

    async def message(self, *recipients: str, wire: bytes = b"Subject: hello\r\n\r\nhello\r\n") -> str:
        """Send a whole message and return the reply to its end of data."""
        await self.envelope(*recipients)
        await self.ask("DATA", "354 *")
        await self.send_octets(wire + b".\r\n")
        return await self.reply()

    async def starttls(self, context: ssl.SSLContext) -> None:
        """Say STARTTLS and go on under TLS."""
        await self.ask("STARTTLS", "220 *")
        await self.writer.start_tls(context, server_hostname="localhost")

    async def log_in(self, username: str, password: str, pattern: str = "235 *") -> None:
        """AUTH PLAIN."""
        response = base64.b64encode(f"\0{username}\0{password}".encode()).decode()
        await self.ask(f"AUTH PLAIN {response}", pattern)

    async def at_end(self) -> bool:
        """Whether the server closed the connection (waits for it)."""
        async with asyncio.timeout(TIMEOUT):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End the connection at once, without the usual farewell of TCP."""
        self.writer.transport.abort()


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Transcript]:
    """Connect to a port of this machine; ``tls``: from the first octet."""
    reader, writer = await asyncio.open_connection("localhost" if tls else "127.0.0.1", port, ssl=tls)
    transcript = Transcript(reader, writer)
    try:
        yield transcript
    finally:
        writer.close()


@asynccontextmanager
async def greeted(port: int) -> AsyncIterator[Transcript]:
    """Connect and say EHLO."""
    async with connected(port) as transcript:
        await transcript.hello()
        yield transcript
