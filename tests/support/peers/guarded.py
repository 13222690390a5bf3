"""The installed guard as a process, and an operator's desks in this one: a second quicker than the command."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from smtpguard.app import Desks, open_desks
from smtpguard.domain.quarantined import OPEN_STATES, QuarantinedMessage
from tests.support.guard import make_settings, verify
from tests.support.process import GuardProcess, guard_process


@dataclass(frozen=True)
class Guarded:
    """A running guard, and what an operator sees of it."""

    process: GuardProcess
    desks: Desks

    @property
    def port(self) -> int:
        return self.process.port

    async def waiting(self) -> list[QuarantinedMessage]:
        """What is in quarantine, oldest first."""
        return await self.desks.quarantine.list(limit=0, states=OPEN_STATES)

    async def waiting_for(self) -> list[str]:
        """The recipients in quarantine, sorted."""
        return sorted(message.recipient.text for message in await self.waiting())

    async def content(self, message: QuarantinedMessage) -> bytes:
        """The octets that are kept of a message."""
        _, content = await self.desks.quarantine.show(message.id)
        assert content is not None
        return content.message


@asynccontextmanager
async def guarded(
    store_url: str, smarthost_port: int, directory: Path, *, verified: Sequence[str] = (), **settings: str
) -> AsyncIterator[Guarded]:
    """Run the installed guard before a smarthost; ``settings`` are variables without their prefix: ``TLS__REQUIRED``."""
    extra = {f"SMTPGUARD_{name}": value for name, value in settings.items()}
    async with guard_process(store_url, smarthost_port, directory, **extra) as process:
        async with open_desks(make_settings(store_url, smarthost_port)) as desks:
            await verify(desks, *verified)
            yield Guarded(process, desks)
