"""Applications' own verification mail: sign-up codes and the like, which have to reach who is not verified yet.

So many an address and day are let through, counted in the store for all processes together. What was counted and then
not sent is given back, so that a smarthost that is down uses nothing up.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.storage import Store

ALLOWANCE = "verification-mail"


class VerificationMail:
    """The verification mail of one transaction."""

    def __init__(self, store: Store, *, max_per_day: int, now: datetime) -> None:
        self._allowances = store.allowances
        self._max_per_day = max_per_day
        self._day = now.date()
        self._counted: list[str] = []

    async def let_through(self, before: Sequence[Decision], decisions: Sequence[Decision]) -> list[Decision]:
        """Relay to those who would not get it for want of a verification alone, at RCPT and now, and are below the cap.

        Raises StoreError.
        """
        waiting = [
            number
            for number, (earlier, decision) in enumerate(zip(before, decisions, strict=True))
            if decision.awaits_verification and earlier.reason is not Reason.FLAGGED
        ]
        if not waiting:
            return list(decisions)
        keys = [decisions[number].recipient.lookup_key for number in waiting]
        taken = await self._allowances.take(ALLOWANCE, keys, day=self._day, limit=self._max_per_day)
        self._counted = [key for key, is_taken in zip(keys, taken, strict=True) if is_taken]
        passed = {number for number, is_taken in zip(waiting, taken, strict=True) if is_taken}
        return [
            Decision(each.recipient, Verdict.RELAY, Reason.VERIFICATION_MAIL) if number in passed else each
            for number, each in enumerate(decisions)
        ]

    async def give_back(self, lookup_keys: Sequence[str] | None = None) -> None:
        """Take back what was counted for these recipients, or (None) for all: they were not sent anything.

        Where the store fails it stays counted.
        """
        unsent = list(self._counted if lookup_keys is None else lookup_keys)
        for lookup_key in unsent:
            self._counted.remove(lookup_key)
        if unsent:
            with suppress(Exception):  # the reply to the message does not depend on it
                await self._allowances.give_back(ALLOWANCE, unsent, day=self._day)
