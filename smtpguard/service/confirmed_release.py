"""What a Yes lets go: the mail that waits for this address and this customer because it was not verified.

Oldest first, each message once, and none that is too old. A flag that is set meanwhile stops it before the next final
dot; whatever else stops it leaves the rest in quarantine, where an operator finds it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from smtpguard.domain.audit import RECIPIENT
from smtpguard.domain.decision import RELEASED_BY_YES
from smtpguard.domain.invitation import Invitation
from smtpguard.domain.quarantined import QuarantinedMessage
from smtpguard.domain.standing import Standing
from smtpguard.errors import ActRefused, NotFound, RecipientFlagged, SmtpguardError
from smtpguard.service.metrics import Metrics
from smtpguard.service.quarantine_desk import QuarantineDesk
from smtpguard.telemetry import Event, Logger

RELEASES_AT_ONCE = 2
"""So that many who say Yes at once leave the smarthost to the applications."""


class ConfirmedRelease:
    """Releases, in tasks of its own."""

    def __init__(
        self,
        quarantine: QuarantineDesk,
        spawn: Callable[[Coroutine[Any, Any, Any]], Any],
        *,
        up_to_days: int,
        clock: Callable[[], datetime],
        logger: Logger,
        metrics: Metrics,
    ) -> None:
        self._quarantine = quarantine
        self._spawn = spawn
        self._up_to = timedelta(days=up_to_days)
        self._clock = clock
        self._logger = logger
        self._metrics = metrics
        self._places = asyncio.Semaphore(RELEASES_AT_ONCE)
        self._is_closed = False

    def begin(self, invitation: Invitation, voucher_number: int) -> None:
        """Release what waits for the pair of an invitation that was confirmed; it is not waited for."""
        self._spawn(self._release(invitation, voucher_number))

    async def catch_up(self, message: QuarantinedMessage) -> bool:
        """Release what a Yes came too early for: it was given between the RCPT of a message and its end of data.

        Returns whether the recipient is verified by now. Raises StoreUnavailable.
        """
        standing, _ = await self._quarantine.standing(message)
        if standing is not Standing.VERIFIED:
            return False
        confirmed = await self._quarantine.store.invitations.confirmed(message.recipient, message.customer)
        if confirmed is not None and confirmed.voucher_number is not None:
            await self._release(confirmed, confirmed.voucher_number)
        return True

    def close(self) -> None:
        """Stop behind the messages that are under way."""
        self._is_closed = True

    async def _release(self, invitation: Invitation, voucher_number: int) -> None:
        released, left, error = 0, 0, ""
        async with self._places:
            try:
                waiting = await self._waiting(invitation)
                left = len(waiting)
                for message in waiting:
                    if self._is_closed:
                        error = "the guard ends"
                        break
                    released += await self._release_one(message, voucher_number)
                    left = len(waiting) - released
            except SmtpguardError as stopped:
                error = str(stopped)
        log = self._logger.error if error else self._logger.info
        log(
            Event.CONFIRMED_MAIL_RELEASED,
            recipient=invitation.mailbox.text,
            customer=invitation.customer,
            voucher=voucher_number,
            released=released,
            left=left,
            **({"error": error} if error else {}),
        )

    async def _waiting(self, invitation: Invitation) -> list[QuarantinedMessage]:
        return await self._quarantine.store.quarantine.waiting_for(
            invitation.mailbox,
            invitation.customer,
            reasons=RELEASED_BY_YES,
            since=self._clock() - self._up_to,
        )

    async def _release_one(self, message: QuarantinedMessage, voucher_number: int) -> bool:
        """Say whether it was released; what concerns the others too is raised."""
        why = f"confirmed by the recipient, voucher {voucher_number}"
        try:
            await self._quarantine.release_verified(message.id, by=RECIPIENT, why=why)
        except RecipientFlagged:
            raise
        except (ActRefused, NotFound):  # somebody else was quicker, or the smarthost does not want this one
            return False
        self._metrics.confirmed_mail_released()
        return True
