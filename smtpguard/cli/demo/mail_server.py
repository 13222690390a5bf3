"""The stand-in for the real mail server: it takes every message, and remembers who got what.

Enough of RFC 5321 for the guard, and for anybody who talks to it by hand; nothing leaves it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from smtpguard.domain.envelope import parse_reverse_path
from smtpguard.domain.mailbox import parse_mailbox, split_path
from smtpguard.domain.message import read_header
from smtpguard.errors import MailboxSyntaxError

LOOPBACK = "127.0.0.1"
NAME = "mail.shop.example"
MAX_LINE_OCTETS = 1_048_576


@dataclass(frozen=True)
class Delivery:
    """A message in a mailbox."""

    recipient: str
    """A lookup key."""
    message_id: str
    message: bytes = field(repr=False)


@dataclass
class MailServer:
    """What was delivered. ``port`` is where it listens; ``on_delivery`` hears of each delivery."""

    port: int = 0
    deliveries: list[Delivery] = field(default_factory=list)
    on_delivery: Callable[[Delivery], None] = lambda _: None

    def deliver(self, recipients: list[str], message: bytes) -> None:
        """Put a message into mailboxes."""
        message_id = read_header(message).value("message-id").decode("ascii", "replace")
        for recipient in recipients:
            delivery = Delivery(recipient, message_id, message)
            self.deliveries.append(delivery)
            self.on_delivery(delivery)


@asynccontextmanager
async def running_mail_server() -> AsyncIterator[MailServer]:
    """Run a mail server on a port of loopback that the system chooses."""
    mail_server = MailServer()
    writers: set[asyncio.StreamWriter] = set()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await _Session(mail_server, reader, writer).run()
        except (ConnectionError, ValueError):  # it went away, or sent a line or a header without end
            pass
        finally:
            writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(on_connection, LOOPBACK, 0, limit=MAX_LINE_OCTETS)
    mail_server.port = server.sockets[0].getsockname()[1]
    try:
        yield mail_server
    finally:
        server.close()
        for writer in tuple(writers):
            writer.transport.abort()


class _Session:
    """One connection."""

    def __init__(self, mail_server: MailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._mail_server = mail_server
        self._reader = reader
        self._writer = writer
        self._has_sender = False
        self._recipients: list[str] = []

    async def run(self) -> None:
        """Answer commands until QUIT or the end of the connection."""
        verb = ""
        await self._say(f"220 {NAME} ESMTP")
        while verb != "QUIT" and (line := await self._reader.readline()):
            verb, _, argument = line.decode("utf-8", "replace").rstrip("\r\n").partition(" ")
            verb = verb.upper()
            if verb == "DATA" and self._recipients:
                await self._read_message()
            else:
                await self._say(*self._answer(verb, argument))

    def _answer(self, verb: str, argument: str) -> list[str]:
        match verb:
            case "EHLO":
                self._reset()
                return [f"250-{NAME}", "250-PIPELINING", "250-8BITMIME", "250 ENHANCEDSTATUSCODES"]
            case "HELO" | "RSET":
                self._reset()
            case "NOOP":
                pass
            case "MAIL" | "RCPT":
                return [self._mail(argument) if verb == "MAIL" else self._rcpt(argument)]
            case "DATA":
                return ["503 5.5.1 No recipients"]
            case "QUIT":
                return ["221 2.0.0 Bye"]
            case _:
                return ["502 5.5.1 Command not implemented"]
        return ["250 2.0.0 OK"]

    def _mail(self, argument: str) -> str:
        if self._has_sender:
            return "503 5.5.1 Nested MAIL"
        try:
            parse_reverse_path(_path(argument, "FROM:"))
        except MailboxSyntaxError:
            return "501 5.1.7 Bad sender address syntax"
        self._has_sender = True
        return "250 2.1.0 OK"

    def _rcpt(self, argument: str) -> str:
        if not self._has_sender:
            return "503 5.5.1 MAIL first"
        try:
            self._recipients.append(parse_mailbox(_path(argument, "TO:")).lookup_key)
        except MailboxSyntaxError:
            return "501 5.1.3 Bad recipient address syntax"
        return "250 2.1.5 OK"

    async def _read_message(self) -> None:
        await self._say("354 End with a dot")
        message = bytearray()
        while (line := await self._reader.readline()) != b".\r\n":
            if not line:
                raise ConnectionResetError
            message += line.removeprefix(b".")
        self._mail_server.deliver(self._recipients, bytes(message))
        self._reset()
        await self._say(f"250 2.0.0 Delivered as {len(self._mail_server.deliveries)}")

    def _reset(self) -> None:
        self._has_sender = False
        self._recipients = []

    async def _say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode("ascii"))
        await self._writer.drain()


def _path(argument: str, keyword: str) -> str:
    if not argument.upper().startswith(keyword):
        raise MailboxSyntaxError("there is no path")
    return split_path(argument[len(keyword) :])[0]
