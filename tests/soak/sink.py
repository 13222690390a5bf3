"""A smarthost that can be killed: ``python -m tests.soak.sink PORT JOURNAL [SEED]``.

Each message is a line of the journal, on the disk before the 250. With a seed it has moods: now and then it puts a
message off, or takes it and hangs up without a word.
"""

import asyncio
import json
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.soak.messages import Identity, Reader

CAPABILITIES = ("sink.example", "PIPELINING", "SIZE 104857600", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN")
END = b"\r\n.\r\n"
PUTS_OFF, FALLS_SILENT = 0.03, 0.03
"""How often it is in such a mood."""


class Journal:
    """What was taken. A line is one write, so that a kill leaves it whole or not at all."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._descriptor, b"\n")  # behind what a kill may have cut off

    async def add(self, identity: Identity, recipients: list[str]) -> None:
        """Write it down; it is on the disk afterwards."""
        record = {
            "message": identity.message,
            "attempt": identity.attempt,
            "digest": identity.digest,
            "recipients": recipients,
        }
        os.write(self._descriptor, json.dumps(record).encode() + b"\n")
        await asyncio.to_thread(os.fdatasync, self._descriptor)


class Body:
    """Reads a body off the stream in pieces: dots unstuffed, handed to a reader, never held as a whole."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._rest = b"\r\n"  # lets a dot in the very first line be seen like any other
        self._skip = 2
        self._reader = Reader()

    async def read(self) -> tuple[Identity, bytes]:
        """Return what it is, and what came behind the final dot."""
        while (end := self._rest.find(END)) < 0:
            self._hand_over(self._safe_length())
            octets = await self._stream.read(262_144)
            if not octets:
                raise ConnectionError
            self._rest += octets
        behind = self._rest[end + len(END) :]
        self._hand_over(end + 2)
        return self._reader.identity(), behind

    def _safe_length(self) -> int:
        """As much as can hold no part of the end, nor a line end whose dot has not come yet."""
        length = max(0, len(self._rest) - len(END))
        while length and self._rest[length - 1] in b"\r\n":
            length -= 1
        return length

    def _hand_over(self, length: int) -> None:
        octets, self._rest = self._rest[:length].replace(b"\r\n.", b"\r\n"), self._rest[length:]
        self._reader.feed(octets[self._skip :])
        self._skip = max(0, self._skip - len(octets))


class Session:
    """One connection."""

    def __init__(
        self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter, journal: Journal, dice: random.Random | None
    ) -> None:
        self._stream = stream
        self._writer = writer
        self._journal = journal
        self._dice = dice
        self._buffer = b""
        self._recipients: list[str] = []

    async def run(self) -> None:
        """Hold the whole dialogue."""
        self._say("220 sink.example")
        while True:
            verb, _, argument = (await self._line()).partition(" ")
            match verb:
                case "EHLO":
                    self._say(*(f"250-{each}" for each in CAPABILITIES), "250 HELP")
                case "MAIL" | "RSET":
                    self._recipients = []
                    self._say("250 2.0.0 ok")
                case "RCPT":
                    self._recipients.append(argument.partition("<")[2].partition(">")[0])
                    self._say("250 2.1.5 ok")
                case "DATA":
                    await self._data()
                case "QUIT":
                    self._say("221 2.0.0 bye")
                    return
                case _:
                    self._say("502 5.5.1 no such command")

    async def _data(self) -> None:
        self._say("354 go ahead")
        body = Body(self._stream)
        identity, self._buffer = await body.read()
        mood = self._dice.random() if self._dice else 1.0
        if mood < PUTS_OFF:
            self._say("451 4.3.0 not now")
            return
        await self._journal.add(identity, self._recipients)
        if mood < PUTS_OFF + FALLS_SILENT:
            raise ConnectionError
        self._say("250 2.0.0 taken")

    async def _line(self) -> str:
        while b"\r\n" not in self._buffer:
            await self._writer.drain()
            octets = await self._stream.read(65_536)
            if not octets:
                raise ConnectionError
            self._buffer += octets
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode()

    def _say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())


async def serve(port: int, file: Path, dice: random.Random | None) -> None:
    """Take mail until SIGTERM."""
    journal = Journal(file)
    tasks: set[asyncio.Task[None]] = set()

    async def converse(stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await Session(stream, writer, journal, dice).run()
        writer.close()

    def accept(stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(converse(stream, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(accept, "127.0.0.1", port, backlog=1024)
    await stop.wait()
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    _, port, journal, *seed = sys.argv
    asyncio.run(serve(int(port), Path(journal), random.Random(int(seed[0])) if seed else None))
