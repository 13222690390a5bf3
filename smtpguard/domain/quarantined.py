"""The quarantined message: one a recipient, and what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from smtpguard.domain.decision import Reason
from smtpguard.domain.envelope import NO_RCPT_PARAMETERS, MailParameters, RcptParameters, ReversePath
from smtpguard.domain.mailbox import Mailbox


class QuarantineState(Enum):
    """Where a quarantined message is on its way; only the first two still have their content."""

    QUARANTINED = "quarantined"
    """It waits for an operator."""
    MAYBE_SENT = "maybe-sent"
    """A release has begun and its end is not known: it is under way, or died under way. An operator settles it."""
    RELEASED = "released"
    DISCARDED = "discarded"
    EXPIRED = "expired"
    """Nobody decided in time."""


OPEN_STATES = frozenset({QuarantineState.QUARANTINED, QuarantineState.MAYBE_SENT})


@dataclass(frozen=True, slots=True)
class QuarantinedMessage:
    """One message for one recipient that was kept back. Its content is shared by all of its transaction."""

    id: str
    transaction_id: str
    state: QuarantineState
    recipient: Mailbox
    reverse_path: ReversePath
    parameters: MailParameters
    application: str
    customer: str | None
    reason: Reason
    received_at: datetime
    rcpt_parameters: RcptParameters = NO_RCPT_PARAMETERS
    subject: str = ""
    size: int = 0
    """Octets of the message as it will be relayed."""
    decided_at: datetime | None = None
    decided_by: str | None = None
    decided_why: str | None = None


@dataclass(frozen=True, slots=True)
class Expiring:
    """How many waiting messages are about to expire, how many of them are not announced, and when the oldest came."""

    count: int
    unannounced: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is open: how many messages in each of these states, when the oldest that waits came, and how many will
    expire soon.
    """

    numbers: Mapping[QuarantineState, int]
    oldest: datetime | None
    expiring: int


@dataclass(frozen=True, slots=True)
class MessageContent:
    """The bytes that wait for release (CRLF lines, not dot-stuffed), with what a listing shows of their header."""

    message: bytes
    subject: str
    sender: str
    date: str
    message_id: str
