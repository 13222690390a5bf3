"""Mailboxes that have changed hands: where the smarthost says so (RFC 7293), the address is flagged at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from smtpguard.domain.audit import GUARD, Act, ActKind
from smtpguard.domain.decision import Decision, Reason
from smtpguard.domain.reply import Reply
from smtpguard.domain.standing import Flag
from smtpguard.storage import Store
from smtpguard.telemetry import Event, Logger

OWNERSHIP_CHANGED = "ownership-changed"


@dataclass(frozen=True)
class Owners:
    """Heeds refusals. What cannot be flagged is logged: the refusal itself is passed on in any case."""

    store: Store
    clock: Callable[[], datetime]
    logger: Logger

    async def heed_of_all(self, decisions: Sequence[Decision], refusal: Reply) -> None:
        """Heed a refusal of the message: with more than one recipient nobody knows whom it is about."""
        if len(decisions) == 1:
            await self.heed(decisions[0], refusal)

    async def heed(self, decision: Decision, refusal: Reply) -> None:
        """Flag a recipient whose mailbox, or its domain, has another owner by now. A flag that stands is left alone."""
        if not refusal.says_owner_changed or decision.reason is Reason.FLAGGED:
            return
        now, mailbox = self.clock(), decision.recipient
        flag = Flag(OWNERSHIP_CHANGED, since=now, by=GUARD)
        why = f"{OWNERSHIP_CHANGED}: {refusal}"
        try:
            await self.store.address_book.flag(
                mailbox, flag, Act(now, GUARD, ActKind.ADDRESS_FLAG, mailbox.lookup_key, why)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the refusal is heard
            self.logger.error(Event.FLAG_FAILED, recipient=mailbox.text, reply=str(refusal), error=str(error))
        else:
            self.logger.warning(Event.OWNER_CHANGED, recipient=mailbox.text, reply=str(refusal))
