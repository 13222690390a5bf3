"""What the smarthost offers, kept fresh for those who have to say it to an application."""

import asyncio
import math

from smtpguard.domain.capabilities import Capabilities
from smtpguard.errors import SmarthostUnavailable
from smtpguard.relay.handshake import Opener
from smtpguard.relay.pool import ConnectionPool

FRESH_SECONDS = 300.0
PATIENCE_SECONDS = 5.0  # an application waits for our reply to EHLO meanwhile
PAUSE_SECONDS = 5.0  # after a failure


class Offers:
    """Every handshake renews what is known; where none was needed for long, one is made."""

    def __init__(self, opener: Opener, pool: ConnectionPool) -> None:
        self._opener = opener
        self._pool = pool
        self._asking = asyncio.Lock()
        self._failed_at = -math.inf

    async def get(self) -> Capabilities | None:
        """Return what the smarthost offers, or offered last where it does not answer soon; never raise."""
        if self._is_due():
            try:
                async with asyncio.timeout(PATIENCE_SECONDS), self._asking:
                    if self._is_due():  # else somebody has asked while we waited
                        self._pool.give_back(await self._pool.borrow())
            except (TimeoutError, SmarthostUnavailable):
                self._failed_at = asyncio.get_running_loop().time()
        return self._opener.offered

    def _is_due(self) -> bool:
        now = asyncio.get_running_loop().time()
        return now >= self._opener.offered_at + FRESH_SECONDS and now >= self._failed_at + PAUSE_SECONDS
