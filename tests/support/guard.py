"""The guard of a test: the real composition root, with a store and a smarthost of the test's own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from smtpguard.app import Desks, Guard, clock, open_desks, running_guard
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.quarantined import OPEN_STATES, QuarantinedMessage
from smtpguard.domain.standing import Standing
from smtpguard.settings import Settings


def make_settings(store_url: str, smarthost_port: int, **sections: dict[str, Any]) -> Settings:
    """Settings on port 0 of loopback; ``sections`` add to them."""
    base: dict[str, dict[str, Any]] = {
        "smtp": {"listen": "127.0.0.1:0", "hostname": "guard.example", "shutdown_timeout": 10},
        "smarthost": {"host": "127.0.0.1", "port": smarthost_port},
        "store": {"url": store_url},
        "policy": {},
        "web": {"listen": ""},
    }
    for name, section in sections.items():
        base[name] = base.get(name, {}) | section if isinstance(section, dict) else section
    return Settings(**base)


@dataclass(frozen=True)
class RunningGuard:
    """A guard that listens on ``port``, and the desks of an operator on the same store."""

    guard: Guard
    desks: Desks
    settings: Settings

    @property
    def port(self) -> int:
        return self.guard.endpoints[0].port

    @property
    def tls_port(self) -> int:
        """That of ``smtp.tls_listen``."""
        return self.guard.endpoints[-1].port

    async def waiting(self) -> list[QuarantinedMessage]:
        return await self.desks.quarantine.list(limit=0, states=OPEN_STATES)

    async def waiting_for(self) -> list[str]:
        """The recipients in quarantine, sorted."""
        return sorted(message.recipient.text for message in await self.waiting())


@asynccontextmanager
async def guarding(store_url: str, smarthost_port: int, **sections: Any) -> AsyncIterator[RunningGuard]:
    """Run a guard for as long as the block."""
    settings = make_settings(store_url, smarthost_port, **sections)
    async with running_guard(settings) as guard, open_desks(settings) as desks:
        yield RunningGuard(guard, desks, settings)


async def verify(desks: Desks, *addresses: str, customer: str | None = None) -> None:
    """Put vouchers into the address book."""
    for address in addresses:
        await desks.addresses.verify(parse_mailbox(address), customer=customer, by="test", why="test")


async def put_on_record(desks: Desks, addresses: Sequence[str], *, customer: str | None = None) -> None:
    """Put addresses on record, unverified."""
    from smtpguard.domain.import_row import ImportRow

    rows = [
        ImportRow(parse_mailbox(address), Standing.UNVERIFIED, customer, None, source="test", reason="")
        for address in addresses
    ]
    await desks.store.address_book.import_rows(rows, now=clock(), by="test")
