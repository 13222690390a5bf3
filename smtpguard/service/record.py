"""What is recorded of a transaction: the log line and the ledger entries, out of the same facts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final

from smtpguard.domain.application import Origin
from smtpguard.domain.decision import RELAY, Decision, Verdict
from smtpguard.domain.envelope import ReversePath
from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.message import Header, readable
from smtpguard.domain.reply import R451_SMARTHOST_UNAVAILABLE, Reply

MAX_LOGGED_RECIPIENTS = 100


class Outcome(Enum):
    """How a transaction ended."""

    ACCEPTED = "accepted"
    """250: every accepted recipient's message is relayed or in quarantine."""
    REFUSED = "refused"
    """5yz to the end of data: nothing is left."""
    DEFERRED = "deferred"
    """4yz to the end of data: nothing is left, the application tries again."""
    MAYBE_DELIVERED = "maybe-delivered"
    """The smarthost was lost after the final dot; the application was told to try again."""
    CLIENT_GONE = "client-gone"
    """The application was gone before the final dot: nothing is left."""
    ABORTED = "aborted"
    """No end of data: RSET, QUIT, a time-out, or a lost session."""
    CUT_OFF = "cut-off"
    """The guard had to stop before the end was known: maybe delivered, maybe in quarantine; nobody heard a 250."""
    FAILED = "failed"
    """An error of the guard; the application was told to try again."""


ACCEPTED: Final = Outcome.ACCEPTED  # looked at for each message: see domain/decision.py
NOTHING_SENT = (Outcome.REFUSED, Outcome.DEFERRED, Outcome.CLIENT_GONE)
"""How a transaction ends that got as far as the end of data, and of which nobody can have got anything."""


class Ended(Exception):
    """The transaction ends here with this reply."""

    def __init__(self, reply: Reply, outcome: Outcome, smarthost_reply: Reply | None = None) -> None:
        self.reply = reply
        self.outcome = outcome
        self.smarthost_reply = smarthost_reply


def refused_by_smarthost(reply: Reply) -> Ended:
    """Pass a refusal on; 421 would tell the application that it is the guard that hangs up."""
    heard = R451_SMARTHOST_UNAVAILABLE if reply.code == 421 else reply
    return Ended(heard, outcome_of(reply), reply)


def outcome_of(refusal: Reply) -> Outcome:
    """Say how a transaction ends with this refusal."""
    return Outcome.DEFERRED if refusal.is_transient else Outcome.REFUSED


_UNHEARD = (Outcome.ABORTED, Outcome.CLIENT_GONE, Outcome.CUT_OFF)


@dataclass(slots=True)
class TransactionRecord:
    """Gathers what the log and the ledger will say."""

    transaction_id: str
    origin: Origin
    reverse_path: ReversePath
    began_at: datetime
    customer: str | None = None
    purpose: str = ""
    size: int = 0
    error: str = ""
    client_gone: bool = False
    refusals: list[tuple[Decision, Reply]] = field(default_factory=list)
    """The recipients whose RCPT did not get a positive reply, and what it got."""
    accepted_decisions: list[Decision] = field(default_factory=list)
    """What was decided about the others, at last."""
    _message_id: str = ""
    _subject_digest: str = ""

    @property
    def offer_count(self) -> int:
        """How many RCPT were answered."""
        return len(self.refusals) + len(self.accepted_decisions)

    def accepted(self, decision: Decision) -> None:
        """Note a recipient whose RCPT got a positive reply."""
        self.accepted_decisions.append(decision)

    def refused(self, decision: Decision, reply: Reply) -> None:
        """Note a recipient whose RCPT got another."""
        self.refusals.append((decision, reply))

    def header(self, header: Header) -> None:
        """Note the header fields that the ledger keeps."""
        self._message_id = readable(header.value("message-id"))
        subject = header.value("subject")
        self._subject_digest = hashlib.sha256(subject).hexdigest() if subject else ""

    def decided(self, decisions: Sequence[Decision]) -> None:
        """Note what the end of data decided about the accepted recipients."""
        self.accepted_decisions = list(decisions)

    def rejected(self, reply: Reply) -> None:
        """Note that the end of data rejected all recipients that were accepted before."""
        self.refusals += [(decision, reply) for decision in self.accepted_decisions]
        self.accepted_decisions = []

    @property
    def relayed(self) -> list[Decision]:
        """The recipients that the message was, or was to be, relayed to."""
        return [each for each in self.accepted_decisions if each.verdict is RELAY]

    def ledger_entries(self, outcome: Outcome, smarthost_reply: Reply | None, now: datetime) -> list[LedgerEntry]:
        """Build an entry for each verdict that was carried out, or that the smarthost did not let be carried out."""
        entries = [
            self._entry(decision, str(reply) if decision.verdict is RELAY else "", now)
            for decision, reply in self.refusals
            if decision.verdict is not Verdict.DEFER
        ]
        if outcome is ACCEPTED:
            said = str(smarthost_reply) if smarthost_reply else ""
            entries += [
                self._entry(each, said if each.verdict is RELAY else "", now) for each in self.accepted_decisions
            ]
        elif outcome is Outcome.MAYBE_DELIVERED or smarthost_reply:
            said = str(smarthost_reply) if smarthost_reply else "lost after the final dot"
            entries += [self._entry(each, said, now) for each in self.accepted_decisions if each.verdict is RELAY]
        return entries

    def log_fields(self, outcome: Outcome, reply: Reply, now: datetime) -> dict[str, Any]:
        """Build the log line of the transaction."""
        recipients = [_log_recipient(decision, "") for decision in self.accepted_decisions[:MAX_LOGGED_RECIPIENTS]]
        for decision, refusal in self.refusals[: MAX_LOGGED_RECIPIENTS - len(recipients)]:
            recipients.append(_log_recipient(decision, str(refusal)))
        fields: dict[str, Any] = {
            "transaction": self.transaction_id,
            "application": self.origin.application.name,
            "peer": self.origin.peer,
            "protocol": self.origin.protocol,
        }
        if self.origin.tls:
            fields["tls"] = self.origin.tls
        fields["outcome"] = outcome._value_
        if outcome not in _UNHEARD:
            fields["reply"] = reply.line
        fields["reverse_path"] = str(self.reverse_path)
        if self.customer is not None:
            fields["customer"] = self.customer
        if self.purpose:
            fields["purpose"] = self.purpose
        if self._message_id:
            fields["message_id"] = self._message_id
        if self.size:
            fields["size"] = self.size
        fields["recipient_count"] = self.offer_count
        fields["recipients"] = recipients
        fields["seconds"] = round((now - self.began_at).total_seconds(), 3)
        if self.error:
            fields["error"] = self.error
        if self.client_gone:
            fields["client_gone"] = True
        return fields

    def _entry(self, decision: Decision, smarthost_reply: str, now: datetime) -> LedgerEntry:
        return LedgerEntry(
            transaction_id=self.transaction_id,
            at=now,
            application=self.origin.application.name,
            decision=decision,
            customer=self.customer,
            smarthost_reply=smarthost_reply,
            message_id=self._message_id,
            subject_digest=self._subject_digest,
        )


def _log_recipient(decision: Decision, reply: str) -> dict[str, str]:
    line = {
        "recipient": decision.recipient.text,
        # What ``value`` gives as well, but by a call in Python: there may be many recipients.
        "verdict": decision.verdict._value_,
        "reason": decision.reason._value_,
    }
    if decision.would_be:
        line["would_be"] = decision.would_be.value
    if reply:
        line["reply"] = reply
    return line
