"""The policy: what is done with which standing."""

from dataclasses import dataclass
from enum import Enum


class Mode(Enum):
    """Whether the verdicts are carried out."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    """Relay everything, and record what would have been done."""


class UnverifiedPolicy(Enum):
    """What is done with mail to a recipient who is not verified."""

    QUARANTINE = "quarantine"
    REJECT = "reject"
    RELAY = "relay"


class FlaggedPolicy(Enum):
    """What is done with mail to a flagged recipient; it is never relayed."""

    QUARANTINE = "quarantine"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of one application. ``trusted_domains`` are lookup forms (lower case, A-labels)."""

    mode: Mode = Mode.ENFORCE
    unverified: UnverifiedPolicy = UnverifiedPolicy.QUARANTINE
    flagged: FlaggedPolicy = FlaggedPolicy.QUARANTINE
    customer_header: str = "X-Customer-ID"
    trusted_domains: frozenset[str] = frozenset()
