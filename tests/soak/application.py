"""An application of a campaign: sends unique messages, each again and again until it is acknowledged, as a spool would."""

import asyncio
import itertools
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.soak.history import Attempt
from tests.soak.messages import Composed, compose, stuffed
from tests.soak.world import World
from tests.support.transcript import Transcript

GONE = (OSError, asyncio.IncompleteReadError, TimeoutError)
VANISHES, KEEPS_SESSION, GOES_ON, WAITS = 0.03, 0.5, 0.5, 0.5
"""How often it leaves in the middle, sends another message in the same session, goes on without those recipients that
were put off, and waits for better days before it tries again."""


class PutOff(Exception):
    """The guard said no for now."""


@dataclass
class Draft:
    """An attempt that is being made."""

    accepted: list[str] = field(default_factory=list)
    dot_at: int | None = None
    reply: str | None = None


class Application:
    """One application, with its own dice; ``record`` is called with each attempt."""

    def __init__(self, name: str, world: World, dice: random.Random, record: Callable[[Attempt], None]) -> None:
        self._name = name
        self._world = world
        self._dice = dice
        self._record = record
        self._session: Transcript | None = None
        self._takes_chunks = False

    async def run(self, *, at_least: int) -> None:
        """Send so many messages, and more until the world has seen enough."""
        number = 0
        while number < at_least or not self._world.enough.is_set():
            await self._send(f"{self._name}-{number}")
            number += 1
        self._leave()

    async def _send(self, message: str) -> None:
        """Send one message to all of its recipients, in as many attempts as it takes."""
        size, customer = self._size(), self._dice.random() < 0.5
        pending = self._world.recipients(message, self._dice)
        for number in itertools.count():
            attempt = await self._try(message, number, pending, compose(message, number, size=size, customer=customer))
            self._record(attempt)
            await self._world.attempt_ended()
            if attempt.is_acknowledged:
                pending = [recipient for recipient in pending if recipient not in attempt.accepted]
                if not pending:
                    return
            else:
                self._leave()
                await self._wait()

    async def _try(self, message: str, number: int, recipients: list[str], composed: Composed) -> Attempt:
        draft = Draft()
        with suppress(*GONE, PutOff):
            await self._attempt(draft, recipients, composed.sent)
        return Attempt(
            message=message,
            number=number,
            digest=composed.digest,
            accepted=tuple(draft.accepted),
            dot_at=draft.dot_at,
            reply=draft.reply,
            ended_at=self._world.moment(),
        )

    def _size(self) -> int:
        """Mostly small, a few of some MB."""
        return int(10 ** self._dice.uniform(2, 6.5 if self._dice.random() < 0.1 else 4.5))

    async def _wait(self) -> None:
        await self._world.guard_is_up.wait()
        if self._dice.random() < WAITS:
            await self._world.better_days()

    async def _attempt(self, draft: Draft, recipients: list[str], message: bytes) -> None:
        session = await self._begun_session()
        await self._ask(session, "MAIL FROM:<crm@shop.example>")
        for recipient in recipients:
            await session.send(f"RCPT TO:<{recipient}>")
            if (await session.reply()).startswith("2"):
                draft.accepted.append(recipient)
        put_off = len(draft.accepted) < len(recipients)
        if not draft.accepted or (put_off and self._dice.random() > GOES_ON):
            raise PutOff
        by_chunks = self._takes_chunks and self._dice.random() < 0.5
        await (self._send_chunks if by_chunks else self._send_data)(session, draft, message)
        if self._dice.random() < VANISHES:
            session.reset()
            raise ConnectionError
        draft.reply = await session.reply()
        if self._dice.random() > KEEPS_SESSION:
            self._leave()

    async def _send_data(self, session: Transcript, draft: Draft, message: bytes) -> None:
        await self._ask(session, "DATA", "354")
        wire = stuffed(message)
        if self._dice.random() < VANISHES:
            await session.send_octets(wire[: self._dice.randrange(len(wire))])
            session.reset()
            raise ConnectionError
        await session.send_octets(wire)
        draft.dot_at = self._world.moment()
        await session.send(".")

    async def _send_chunks(self, session: Transcript, draft: Draft, message: bytes) -> None:
        """RFC 3030."""
        cut = self._dice.randrange(len(message))
        if cut:
            await session.send_octets(b"BDAT %d\r\n" % cut + message[:cut])
            self._must_be(await session.reply(), "250")
        draft.dot_at = self._world.moment()
        await session.send_octets(b"BDAT %d LAST\r\n" % (len(message) - cut) + message[cut:])

    async def _begun_session(self) -> Transcript:
        if self._session is None:
            self._session = Transcript(*await asyncio.open_connection("127.0.0.1", self._world.port))
            self._must_be(await self._session.reply(), "220")
            offers = await self._ask(self._session, f"EHLO {self._name}.example")
            self._takes_chunks = bool(re.search(r"^250.CHUNKING$", offers, re.MULTILINE))
        return self._session

    async def _ask(self, session: Transcript, line: str, code: str = "250") -> str:
        await session.send(line)
        said = await session.reply()
        self._must_be(said, code)
        return said

    def _must_be(self, said: str, code: str) -> None:
        if not said.startswith(code):
            raise PutOff(said)

    def _leave(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
