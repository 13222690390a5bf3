"""A recipient: the guard whose pages are asked, the invitations that come, and a clock that can be moved."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import unescape
from typing import Any

import httpx

from smtpguard import app
from smtpguard.app import clock
from smtpguard.domain.mailbox import Mailbox, parse_mailbox
from smtpguard.domain.standing import Standing
from tests.support.eventually import eventually
from tests.support.guard import RunningGuard, guarding
from tests.support.invitations import ORGANISATION, PUBLIC_URL, VERIFICATION, token_of
from tests.support.scripted_smarthost import ScriptedSmarthost

ANNA = parse_mailbox("anna@example.com")
READING = timedelta(seconds=5)
"""How long a person reads."""
_SHOWN_AT = re.compile(r'name="shown_at" value="([^"]+)"')


@dataclass
class MovedClock:
    """The time, moved."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return clock() + self.ahead


@dataclass(frozen=True)
class Recipient:
    """Whoever reads mail, with a browser that knows HTML and little else."""

    guard: RunningGuard
    http: httpx.AsyncClient
    smarthost: ScriptedSmarthost
    clock: MovedClock
    mailbox: Mailbox = ANNA

    def url(self, path: str) -> str:
        """Where a page is, for a browser."""
        return str(self.http.base_url).rstrip("/") + path

    async def invited(
        self, *, customer: str | None = "7", challenge: tuple[str, str] | None = None, **rest: Any
    ) -> str:
        """Be invited, and return the path of the link that came."""
        await self.guard.desks.invitations.invite(
            rest.pop("mailbox", ANNA),
            customer=customer,
            language=rest.pop("language", None),
            challenge=challenge,
            by="anna",
        )
        return f"/c/{token_of(self.smarthost.messages[-1])}"

    async def sent_a_link(self, address: str) -> str:
        """Ask for a link to disown, and return the path of the one that came."""
        await self.http.post("/stop", data={"address": address})
        await eventually(lambda: len(self.smarthost.messages) == 1)
        return f"/d/{token_of(self.smarthost.messages[-1])}"

    async def opened(self, link: str) -> httpx.Response:
        """Open a page, and take a moment to read it."""
        page = await self.http.get(link)
        self.clock.ahead += READING
        return page

    async def pressed(
        self, link: str, answer: str, page: httpx.Response | None = None, **fields: str
    ) -> httpx.Response:
        """Open the page of a link (unless it is), read it, and press a button."""
        page = await self.opened(link) if page is None else page
        found = _SHOWN_AT.search(page.text)
        form = {"shown_at": unescape(found[1])} if found else {}
        return await self.http.post(link, data={**form, "answer": answer, **fields})

    async def standing(self) -> Standing:
        """What the address book says of Anna."""
        record = await self.guard.desks.addresses.show(ANNA)
        return record.standing(clock())


@asynccontextmanager
async def receiving(
    store_url: str, smarthost: ScriptedSmarthost, monkeypatch: Any, **web: Any
) -> AsyncIterator[Recipient]:
    """Run a guard with pages for as long as the block."""
    moved = MovedClock()
    monkeypatch.setattr(app.web, "clock", moved)
    sections = {
        "verification": VERIFICATION,
        "web": {"listen": "", "public_listen": "127.0.0.1:0", "public_url": PUBLIC_URL, **web},
    }
    async with (
        guarding(store_url, smarthost.port, **sections) as guard,
        httpx.AsyncClient(base_url=f"http://{guard.guard.page_endpoints[0]}", trust_env=False, timeout=20) as http,
    ):
        yield Recipient(guard, http, smarthost, moved)


__all__ = ["ANNA", "ORGANISATION", "Recipient", "receiving"]
