"""Renewal: before a voucher ends, whoever reads the mailbox is asked again.

It is the same invitation, within all limits of those that are made by themselves, and one for each voucher: who lets it
pass is asked again when mail for them is kept. A Yes gives another voucher; the old one ends at its time.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

from smtpguard.domain.invitation import Invitation, InvitationRefusal
from smtpguard.domain.mailbox import Mailbox
from smtpguard.errors import ActRefused, InvitationRefused, SmtpguardError
from smtpguard.storage import Store
from smtpguard.telemetry import Event, Logger

ALLOWANCE = "renewal"
"""Counted once a day, for all guards of a store."""


@dataclass(frozen=True)
class Renewal:
    """Invites whose vouchers end ``within`` this time; ``invite`` raises as ``Inviter.invite`` does."""

    store: Store
    invite: Callable[[Mailbox, str | None], Awaitable[Invitation]]
    within: timedelta
    clock: Callable[[], datetime]
    logger: Logger

    async def round(self) -> None:
        """Invite them, unless one of all guards has done so today. Raises StoreError."""
        now = self.clock()
        if await self.store.allowances.take(ALLOWANCE, [""], day=now.date(), limit=1) == [False]:
            return
        invited, stopped_by, is_day_over = 0, None, True
        try:
            async with aclosing(self.store.address_book.ending(now=now, until=now + self.within)) as pages:
                async for pairs in pages:
                    for mailbox, customer in pairs:
                        invited += await self._invited(mailbox, customer)
        except InvitationRefused as refusal:  # for all that come after it, too
            stopped_by = str(refusal)
        except SmtpguardError as error:
            stopped_by, is_day_over = str(error), False
        if stopped_by:
            self.logger.warning(Event.RENEWALS_INVITED, invited=invited, stopped_by=stopped_by)
        elif invited:
            self.logger.info(Event.RENEWALS_INVITED, invited=invited)
        if not is_day_over:
            await self.store.allowances.give_back(ALLOWANCE, [""], day=now.date())

    async def _invited(self, mailbox: Mailbox, customer: str | None) -> bool:
        """Say whether one was invited; what would stop the others too is raised."""
        try:
            await self.invite(mailbox, customer)
        except InvitationRefused as refusal:
            if refusal.code == InvitationRefusal.CAP_REACHED.value:
                raise
            return False
        except ActRefused:
            return False
        return True
