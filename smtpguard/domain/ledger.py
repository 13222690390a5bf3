"""An entry of the ledger: what was done for one recipient of one transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from smtpguard.domain.decision import Decision


class LedgerEntry(NamedTuple):
    """One recipient of one transaction that got past the end of data.

    ``smarthost_reply`` is the smarthost's answer to the message, "" for a quarantined recipient;
    ``subject_digest`` the SHA-256 of the subject, hexadecimal, "" where there is none.
    """

    transaction_id: str
    at: datetime
    application: str
    decision: Decision
    customer: str | None
    smarthost_reply: str
    message_id: str
    subject_digest: str


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """An entry as it stands in the ledger; a later one has a higher id."""

    id: int
    entry: LedgerEntry
