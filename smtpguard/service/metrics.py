"""What is counted while the guard runs, for whoever watches it.

Counting costs next to nothing a message: it is done at the end of a transaction, after the reply, out of what is on its
record. What is rare, invitations and what expires, is counted where it happens. A label comes from a closed list or is
the name of an application: never an address, nor what a peer said.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime

from smtpguard.domain.decision import Decision, Verdict
from smtpguard.domain.invitation import AnswerOutcome, SendingOutcome
from smtpguard.domain.reply import R451_SMARTHOST_UNAVAILABLE, Reply
from smtpguard.service.record import ACCEPTED, Ended, Outcome, TransactionRecord
from smtpguard.telemetry import logged_events

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds; a transaction is counted under the first that it did not take longer than."""

Labels = tuple[str, ...]
Numbers = Mapping[str, Mapping[Labels, float]]
"""By family, and by the values of its labels."""


class Metrics:
    """The numbers of this process, and of all processes of the guard where there is no other."""

    def __init__(self) -> None:
        self._sessions: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._recipients: Counter[Labels] = Counter()
        self._transactions: Counter[Labels] = Counter()
        self._smarthost_errors: Counter[Labels] = Counter()
        self._invitations: Counter[Labels] = Counter()
        self._released = 0
        self._expired = 0
        self._took = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def begin(self, sessions: Callable[[], tuple[int, int]]) -> None:
        """Begin; ``sessions`` tells how many are open, and how many have been opened."""
        self._sessions = sessions

    def end(self) -> None:
        """End."""

    async def of_all(self) -> Numbers:
        """Return the numbers of all processes of this guard."""
        return summed([self.numbers()])

    def transaction_ended(self, record: TransactionRecord, ended: Ended, now: datetime) -> None:
        """Count a transaction and its recipients."""
        application = record.origin.application.name
        self._transactions[application, ended.outcome._value_] += 1
        seconds = (now - record.began_at).total_seconds()
        self._took[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds
        if ended.outcome is ACCEPTED:
            for decision in record.accepted_decisions:
                self._recipients[application, decision.verdict._value_, decision.reason._value_] += 1
        else:
            self._count_failure(ended)
        if record.refusals:
            self._count_refusals(application, record.refusals)

    def invitation(self, outcome: SendingOutcome | AnswerOutcome) -> None:
        """Count what became of an invitation, or of an answer to one."""
        self._invitations[outcome.value,] += 1

    def confirmed_mail_released(self) -> None:
        """Count a message that went out because its recipient said Yes."""
        self._released += 1

    def quarantine_expired(self, messages: int) -> None:
        """Count messages that nobody decided about in time."""
        self._expired += messages

    def numbers(self) -> Numbers:
        """Return all numbers as they are now."""
        is_open, opened = self._sessions()
        took = [*map(str, BOUNDS), "+Inf"]
        return {
            "recipients": self._recipients,
            "transactions": self._transactions,
            "smarthost_errors": self._smarthost_errors,
            "invitations": self._invitations,
            "confirmed_mail_released": {(): self._released},
            "quarantine_expired": {(): self._expired},
            "transaction_took": {(bound,): number for bound, number in zip(took, self._took, strict=True)},
            "transaction_seconds": {(): self._seconds},
            "sessions": {(): is_open},
            "sessions_opened": {(): opened},
            "log_events": {(event,): number for event, number in dict(logged_events).items()},
        }

    def _count_failure(self, ended: Ended) -> None:
        if ended.outcome is Outcome.MAYBE_DELIVERED:
            self._smarthost_errors["lost-after-the-dot",] += 1
        elif ended.smarthost_reply is not None:
            self._smarthost_errors[_kind(ended.smarthost_reply),] += 1
        elif ended.reply is R451_SMARTHOST_UNAVAILABLE:
            self._smarthost_errors["unavailable",] += 1

    def _count_refusals(self, application: str, refusals: list[tuple[Decision, Reply]]) -> None:
        """A recipient who was to be relayed to was refused by the smarthost, or could not be offered to it."""
        for decision, reply in refusals:
            if decision.verdict is Verdict.RELAY:
                self._smarthost_errors[_kind(reply),] += 1
            else:
                self._recipients[application, decision.verdict._value_, decision.reason._value_] += 1


def _kind(reply: Reply) -> str:
    if reply is R451_SMARTHOST_UNAVAILABLE:
        return "unavailable"
    return "deferred" if reply.is_transient else "refused"


def summed(several: list[Numbers]) -> dict[str, Counter[Labels]]:
    """Add the numbers of several processes up."""
    total: dict[str, Counter[Labels]] = {}
    for numbers in several:
        for family, values in numbers.items():
            total.setdefault(family, Counter()).update(values)
    return total
