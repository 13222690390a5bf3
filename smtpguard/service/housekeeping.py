"""Housekeeping: what nobody decides about in time expires, announced and on record; counts of old days are removed;
whose vouchers end soon are invited again.

Processes that share a store may all do it: a message expires once, whoever comes first.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from smtpguard.domain.audit import GUARD, Act, ActKind
from smtpguard.service.metrics import Metrics
from smtpguard.service.renewal import Renewal
from smtpguard.storage import Store
from smtpguard.telemetry import Event, Logger

FIRST_ROUND_SECONDS = 30.0
ROUND_SECONDS = 3600.0
MAX_NOTICE = timedelta(days=7)
"""How long before its expiry a message is announced; a third of the retention where that is less."""


def notice(retention: timedelta) -> timedelta:
    """Return how long before its expiry a message is announced."""
    return min(MAX_NOTICE, retention / 3)


@dataclass(frozen=True)
class Housekeeping:
    """Lets quarantined messages expire (``retention`` None: never), and removes what is of no use any more."""

    store: Store
    retention: timedelta | None
    clock: Callable[[], datetime]
    logger: Logger
    metrics: Metrics = field(default_factory=Metrics)
    renewal: Renewal | None = None
    """None: nobody is invited before a voucher ends."""

    async def run(self) -> None:
        """Make a round every hour, without end."""
        await asyncio.sleep(FIRST_ROUND_SECONDS)
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        """Announce what will expire, let expire what was announced long enough ago, clear up, renew.

        Raises no Exception.
        """
        try:
            if self.retention is not None:
                await self._announce(self.retention, notice(self.retention))
                await self._expire(self.retention, notice(self.retention))
            yesterday = self.clock().date() - timedelta(days=1)
            while await self.store.allowances.forget(before=yesterday):
                pass
            if self.renewal is not None:
                await self.renewal.round()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round tries again
            self.logger.error(Event.HOUSEKEEPING_FAILED, error=str(error))

    async def _announce(self, retention: timedelta, before: timedelta) -> None:
        """Announce in the log first: what is noted as announced was."""
        now = self.clock()
        received_until = now - retention + before
        expiring = await self.store.quarantine.expiring(received_until=received_until)
        if expiring.oldest is None:
            return
        self.logger.warning(
            Event.QUARANTINE_EXPIRING,
            messages=expiring.count,
            newly_announced=expiring.unannounced,
            within_days=round(before / timedelta(days=1), 1),
            oldest=expiring.oldest.isoformat(),
        )
        while await self.store.quarantine.announce(received_until=received_until, at=now):
            pass

    async def _expire(self, retention: timedelta, before: timedelta) -> None:
        """Let messages expire, some at a time: others write in between."""
        now = self.clock()
        why = f"it waited for {retention.days} days"
        messages = 0
        try:
            while expired := await self.store.quarantine.expire(
                received_until=now - retention,
                announced_until=now - before,
                act=lambda message_id: Act(now, GUARD, ActKind.EXPIRE, message_id, why),
            ):
                messages += len(expired)
        finally:
            if messages:
                self.metrics.quarantine_expired(messages)
                self.logger.info(Event.QUARANTINE_EXPIRED, messages=messages)
