"""Allowances: what may be done so many times a day for one subject, counted exactly across all processes of a store."""

from collections.abc import Sequence
from datetime import date

from sqlalchemy import Connection, delete, select, tuple_, update

from smtpguard.storage.dialects import insert_into
from smtpguard.storage.tables import allowances
from smtpguard.storage.writer import Writer

FORGOTTEN_AT_ONCE = 1000


class Allowances:
    """How often a thing was done on a day, by kind and subject."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def take(self, kind: str, subjects: Sequence[str], *, day: date, limit: int) -> list[bool]:
        """Count one for each subject that has not reached the limit (1 or more); return for each whether it was so.

        Raises StoreError: whether anything was counted is not known.
        """

        def work(connection: Connection) -> list[bool]:
            in_order = sorted(range(len(subjects)), key=lambda number: subjects[number])  # so that two do not deadlock
            taken = {number: _taken(connection, kind, subjects[number], day, limit) for number in in_order}
            return [taken[number] for number in range(len(subjects))]

        return await self._writer.write(work, durable=False)

    async def give_back(self, kind: str, subjects: Sequence[str], *, day: date) -> None:
        """Count one less for each subject: what was counted was not done. Raises StoreError."""

        def work(connection: Connection) -> None:
            for subject in sorted(subjects):
                columns = allowances.c
                is_it = (columns.day == day, columns.kind == kind, columns.subject == subject, columns.count > 0)
                connection.execute(update(allowances).where(*is_it).values(count=columns.count - 1))

        await self._writer.write(work, durable=False)

    async def forget(self, *, before: date) -> int:
        """Remove some of what was counted before a day; return how much."""
        key = tuple_(*allowances.primary_key)
        old = select(*allowances.primary_key).where(allowances.c.day < before).limit(FORGOTTEN_AT_ONCE)

        def work(connection: Connection) -> int:
            return connection.execute(delete(allowances).where(key.in_(old))).rowcount

        return await self._writer.write(work, durable=False)


def _taken(connection: Connection, kind: str, subject: str, day: date, limit: int) -> bool:
    insert = insert_into(connection.dialect, allowances).values(day=day, kind=kind, subject=subject, count=1)
    counted = insert.on_conflict_do_update(
        index_elements=list(allowances.primary_key),
        set_={"count": allowances.c.count + 1},
        where=allowances.c.count < limit,
    )
    return connection.execute(counted.returning(allowances.c.count)).first() is not None
