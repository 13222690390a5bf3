"""The mail servers of the field, set up alike: each passes on what it takes."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tests.support.peers.exim import exim
from tests.support.peers.opensmtpd import opensmtpd
from tests.support.peers.postfix import postfix
from tests.support.peers.wanted import Wanted


@dataclass(frozen=True)
class MailServer:
    """A kind of mail server."""

    run: Callable[[Wanted], AbstractAsyncContextManager[int]]
    """Run one for as long as the block; give the port that it listens on."""
    offers: frozenset[str]
    """Those of the guard's extensions that depend on it."""
    speaks_tls: bool = True
    logs_in: bool = False
    """Whether it can be set up to want a login."""


@asynccontextmanager
async def _postfix(wanted: Wanted) -> AsyncIterator[int]:
    async with postfix(wanted) as instance:
        yield instance.port


SERVERS = {
    "postfix": MailServer(_postfix, frozenset({"8BITMIME", "DSN", "SMTPUTF8"})),
    "exim": MailServer(exim, frozenset({"8BITMIME", "DSN", "SMTPUTF8"}), logs_in=True),
    "opensmtpd": MailServer(opensmtpd, frozenset({"8BITMIME", "DSN"}), speaks_tls=False),
}
