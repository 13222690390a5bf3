"""What traffic leaves in the store: rows of the ledger, and the bindings that they show.

The commits of traffic are relaxed: they survive the death of the process, and a power cut may cost the last moments.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from smtpguard.domain.ledger import LedgerEntry
from smtpguard.storage.sightings import Sightings
from smtpguard.storage.tables import ledger, storable

LEDGER_COLUMNS = [column for column in ledger.c if column is not ledger.c.id]
"""The columns of ``ledger_row``, in its order."""

Detour = Callable[[Callable[[Connection], None]], Awaitable[None]]
"""Runs work in a relaxed transaction of the writer."""


class Recording(NamedTuple):
    """What is written together or not at all."""

    rows: Sequence[Sequence[Any]]
    seen: Sightings

    @property
    def size(self) -> int:
        """How many rows are written."""
        return len(self.rows) + len(self.seen)


def ledger_row(entry: LedgerEntry, at: Any) -> tuple[Any, ...]:
    """Return the values of an entry's row, in the order of LEDGER_COLUMNS; ``at`` is its time as stored."""
    decision = entry.decision
    recipient = decision.recipient
    would_be = decision.would_be
    return (
        entry.transaction_id,
        at,
        entry.application,
        recipient.text,
        recipient.lookup_key,
        entry.customer or "",
        # What ``value`` gives as well, but by a call in Python.
        decision.verdict._value_,
        decision.reason._value_,
        None if would_be is None else would_be._value_,
        storable(entry.smarthost_reply),
        storable(entry.message_id),
        entry.subject_digest,
    )


def sightings_of(entries: Iterable[LedgerEntry]) -> Sightings:
    """Return the bindings that entries show."""
    named = [entry for entry in entries if entry.customer is not None]
    if not named:
        return {}
    return {
        (entry.decision.recipient.lookup_key, entry.customer or ""): entry.at
        for entry in sorted(named, key=lambda entry: entry.at)
    }


def merged(recordings: Sequence[Recording]) -> Recording:
    """Put several recordings together; of the times at which a pair was seen the last counts."""
    if len(recordings) == 1:
        return recordings[0]
    rows: list[Sequence[Any]] = []
    seen: dict[tuple[str, str], datetime] = {}
    for recording in recordings:
        rows += recording.rows
        for pair, at in recording.seen.items():
            if pair not in seen or seen[pair] < at:
                seen[pair] = at
    return Recording(rows, seen)
