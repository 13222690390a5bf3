"""Which messages are to expire: their ids sort by time, so that the index on state and id leads to the oldest."""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from smtpguard.domain.ids import first_id_after
from smtpguard.domain.quarantined import Expiring, QuarantineState
from smtpguard.storage.tables import quarantined_messages

EXPIRED_AT_ONCE = 50
EXPIRED_OCTETS_AT_ONCE = 16_777_216
"""What one transaction removes: others want to write, too."""
ANNOUNCED_AT_ONCE = 500


def count_expiring(connection: Connection, received_until: datetime) -> Expiring:
    """Count what waits since this time or longer."""
    columns = quarantined_messages.c
    unannounced = func.count().filter(columns.announced_at.is_(None))
    query = select(func.count(), unannounced, func.min(columns.received_at)).where(_waits_since(received_until))
    return Expiring(*connection.execute(query).one())


def announce(connection: Connection, received_until: datetime, at: datetime) -> int:
    """Note of some messages that they are announced; return of how many."""
    columns = quarantined_messages.c
    unannounced = select(columns.id).where(_waits_since(received_until), columns.announced_at.is_(None))
    some = unannounced.order_by(columns.id).limit(ANNOUNCED_AT_ONCE)
    return connection.execute(update(quarantined_messages).where(columns.id.in_(some)).values(announced_at=at)).rowcount


def some_due(connection: Connection, received_until: datetime, announced_until: datetime) -> list[tuple[str, str]]:
    """Return the ids of some messages that are due, the oldest first, with those of their transactions."""
    columns = quarantined_messages.c
    query = select(columns.id, columns.transaction_id, columns.size)
    query = query.where(_waits_since(received_until), columns.announced_at <= announced_until).order_by(columns.id)
    due: list[tuple[str, str]] = []
    octets = 0
    for row in connection.execute(query.limit(EXPIRED_AT_ONCE)):
        octets += row.size
        if due and octets > EXPIRED_OCTETS_AT_ONCE:
            break
        due.append((row.id, row.transaction_id))
    return due


def _waits_since(received_until: datetime) -> ColumnElement[bool]:
    columns = quarantined_messages.c
    return and_(
        columns.state == QuarantineState.QUARANTINED.value,
        columns.id < first_id_after(received_until),  # for the index; an id may be older than its message
        columns.received_at <= received_until,
    )
