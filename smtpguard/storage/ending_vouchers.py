"""Which vouchers end soon, with none behind them that holds longer.

No index leads to their ends: every import would pay for it, and they are looked for once a day. So all vouchers are
read, page by page, in the order of their numbers; only those that end soon are looked at more closely.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, not_, or_, select

from smtpguard.domain.invitation import InvitationKind
from smtpguard.domain.mailbox import Mailbox
from smtpguard.storage.facts import any_row
from smtpguard.storage.mailboxes import stored_mailbox
from smtpguard.storage.tables import addresses, bindings, invitations, vouchers

PAGE_VOUCHERS = 5000


@dataclass(frozen=True, slots=True)
class EndingPage:
    """The pairs of a page whose vouchers end soon, and the number of its last voucher, None behind the last page."""

    pairs: list[tuple[Mailbox, str | None]]
    last: int | None


def read_ending(connection: Connection, *, after: int, now: datetime, until: datetime) -> EndingPage:
    """Read a page behind a voucher; those end soon that hold now, and do not any more ``until`` then.

    Left out are pairs of flagged and of shared addresses, and those that were invited in as long a time before now.
    """
    some = select(vouchers.c.id).where(vouchers.c.id > after).order_by(vouchers.c.id).limit(PAGE_VOUCHERS).subquery()
    last = connection.execute(select(func.max(some.c.id))).scalar()
    if last is None:
        return EndingPage([], None)
    query = (
        select(addresses.c.address, addresses.c.lookup_key, vouchers.c.customer)
        .join(addresses, addresses.c.id == vouchers.c.address_id)
        .where(
            vouchers.c.id > after,
            vouchers.c.id <= last,
            vouchers.c.valid_until > now,
            vouchers.c.valid_until <= until,
            vouchers.c.revoked_at.is_(None),
            addresses.c.flag_since.is_(None),
            not_(_is_followed()),
            not_(_is_shared()),
            not_(_was_invited(since=now - (until - now))),
        )
        .order_by(vouchers.c.id)
    )
    rows = connection.execute(query).all()
    return EndingPage([(stored_mailbox(row.address, row.lookup_key), row.customer or None) for row in rows], last)


def _is_followed() -> ColumnElement[bool]:
    """Whether another voucher of the pair, or of the address, holds longer."""
    other = vouchers.alias()
    return any_row(
        other,
        other.c.address_id == vouchers.c.address_id,
        other.c.customer.in_([vouchers.c.customer, ""]),
        other.c.revoked_at.is_(None),
        or_(other.c.valid_until.is_(None), other.c.valid_until > vouchers.c.valid_until),
    )


def _is_shared() -> ColumnElement[bool]:
    """Whether the address is on record for another customer; that of one without a customer is looked at later."""
    is_other = and_(vouchers.c.customer != "", bindings.c.customer != vouchers.c.customer)
    return any_row(bindings, bindings.c.address_id == vouchers.c.address_id, is_other)


def _was_invited(*, since: datetime) -> ColumnElement[bool]:
    return any_row(
        invitations,
        invitations.c.address_id == vouchers.c.address_id,
        invitations.c.created_at > since,
        invitations.c.customer == vouchers.c.customer,
        invitations.c.kind == InvitationKind.CONFIRM.value,
        invitations.c.sent_at.is_not(None),
    )
