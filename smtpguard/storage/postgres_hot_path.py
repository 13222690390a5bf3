"""PostgreSQL on the path of a reply: look-ups and the commits of traffic, each in a line with its own connection.

Both run on the event loop, for a hop to a thread costs more than the query. What arrives together is one exchange. A
commit of traffic does not wait for the server's disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.standing import NOTHING_ON_RECORD, AddressFacts
from smtpguard.storage.facts import facts_of
from smtpguard.storage.postgres_channel import Channel, Rows
from smtpguard.storage.postgres_line import PostgresLine
from smtpguard.storage.postgres_statements import (
    KNOWN_ADDRESSES,
    LEDGER_ROWS,
    LOOK_UPS,
    SEEN_BINDINGS,
    Command,
    array,
)
from smtpguard.storage.recording import LEDGER_COLUMNS, Recording, ledger_row, merged, sightings_of
from smtpguard.storage.sightings import Sightings

LOOKUP_SECONDS = 5
"""How long a look-up may take in all; after that the store is unavailable."""
RECORD_SECONDS = 30
"""How long a commit may take in all; whether it was made is not known after that."""


@dataclass(frozen=True, slots=True)
class _Question:
    """One look-up: some addresses, for one customer ('' for none), at one time (ISO 8601)."""

    lookup_keys: Sequence[str]
    customer: str
    now: str


class PostgresHotPath:
    """See ``database.HotPath``."""

    def __init__(self, *, look_ups: Channel, recordings: Channel) -> None:
        too_late = f"the store did not answer a look-up within {LOOKUP_SECONDS} s"
        self._look_ups = PostgresLine(look_ups, _LookUps(), seconds=LOOKUP_SECONDS, too_late=too_late)
        too_late = f"the store did not answer a write within {RECORD_SECONDS} s"
        self._recordings = PostgresLine(recordings, _Recordings(), seconds=RECORD_SECONDS, too_late=too_late)

    async def facts(
        self, lookup_keys: Sequence[str], *, customer: str | None, now: datetime
    ) -> dict[str, AddressFacts]:
        """Return the facts of every key."""
        facts = await self._look_ups.ask(_Question(lookup_keys, customer or "", now.isoformat()))
        return dict(zip(lookup_keys, facts, strict=True))

    async def record(self, entries: Sequence[LedgerEntry]) -> None:
        """Add entries to the ledger; the customers that they name are bound to their recipients."""
        rows = [ledger_row(entry, entry.at.isoformat()) for entry in entries]
        await self._recordings.ask(Recording(rows, sightings_of(entries)))

    async def bind(self, seen: Sightings) -> None:
        """Bind (lookup key, customer) pairs."""
        await self._recordings.ask(Recording((), seen))

    async def close(self) -> None:
        """Finish what was handed in, and disconnect."""
        await self._recordings.close()
        await self._look_ups.close()


class _LookUps:
    """All questions are one statement."""

    def commands(self, questions: Sequence[_Question]) -> list[Command]:
        """See ``postgres_line.Conversation``."""
        keys = [lookup_key for question in questions for lookup_key in question.lookup_keys]
        customers = [question.customer for question in questions for _ in question.lookup_keys]
        times = [question.now for question in questions for _ in question.lookup_keys]
        return [LOOK_UPS.given({"lookup_key": array(keys), "customer": array(customers), "now": array(times)})]

    def answers(self, questions: Sequence[_Question], rows: Sequence[Rows]) -> list[list[AddressFacts]]:
        """See ``postgres_line.Conversation``."""
        found = {position: facts_of(tuple(facts)) for position, *facts in rows[0]}
        positions = count(1)  # WITH ORDINALITY counts from 1
        return [[found.get(next(positions), NOTHING_ON_RECORD) for _ in question.lookup_keys] for question in questions]


class _Recordings:
    """The rows of all recordings, and the bindings that they show."""

    def commands(self, recordings: Sequence[Recording]) -> list[Command]:
        """See ``postgres_line.Conversation``."""
        rows, seen = merged(recordings)
        commands = []
        if rows:
            names = [each.name for each in LEDGER_COLUMNS]
            commands.append(LEDGER_ROWS.given(dict(zip(names, map(array, zip(*rows, strict=True)), strict=True))))
        if seen:
            in_order = sorted(seen.items())  # so that two writers at once do not deadlock
            arrays = {
                "key": array(key for (key, _), _ in in_order),
                "customer": array(customer for (_, customer), _ in in_order),
                "at": array(at.isoformat() for _, at in in_order),
            }
            commands += [KNOWN_ADDRESSES.given(arrays), SEEN_BINDINGS.given(arrays)]
        return commands

    def answers(self, recordings: Sequence[Recording], rows: Sequence[Rows]) -> list[None]:
        """See ``postgres_line.Conversation``."""
        del rows
        return [None] * len(recordings)
