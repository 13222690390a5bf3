"""Invitations: made within their limits, answered once, with what an answer causes in the same transaction.

Whoever makes or answers one appends an act first and so holds the lock of the audit chain: of all processes of a store
one at a time counts and writes, and no two pass a limit together.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, or_, select, update

from smtpguard.domain.audit import Act
from smtpguard.domain.invitation import (
    CAP_PERIOD,
    PAUSE,
    SENDING,
    Answer,
    Challenge,
    Invitation,
    InvitationKind,
    InvitationRefusal,
    Language,
)
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.standing import Flag, Voucher
from smtpguard.storage.address_book import add_voucher, set_flag
from smtpguard.storage.audit_log import append_act
from smtpguard.storage.long_work import LongWork
from smtpguard.storage.mailboxes import stored_mailbox
from smtpguard.storage.sightings import know_address, see_address, see_bindings
from smtpguard.storage.tables import addresses, bindings, invitations, vouchers
from smtpguard.storage.writer import Writer


@dataclass(frozen=True, slots=True)
class InvitationLimits:
    """What an invitation has to keep to, beside PAUSE."""

    max_a_day: int
    """Of each kind."""
    by_itself: bool
    """No operator asked for it: it goes to no address of several customers, and puts nothing on record."""


class _Refused(Exception):
    """Nothing is to be written."""

    def __init__(self, refusal: InvitationRefusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class _TooLate(Exception):
    """The invitation takes this answer no more: nothing is to be written."""


class Invitations:
    """The invitations of a store."""

    def __init__(self, writer: Writer, long_work: LongWork) -> None:
        self._writer = writer
        self._long_work = long_work

    async def refusal(self, invitation: Invitation, limits: InvitationLimits) -> InvitationRefusal | None:
        """Say why an invitation would not be made now, None where it would; only ``create`` says so for sure."""
        return await self._long_work.read(lambda connection: _refusal(connection, invitation, limits))

    async def create(self, invitation: Invitation, act: Act, limits: InvitationLimits) -> InvitationRefusal | None:
        """Make an invitation, on disk when this returns; return why not where it is refused."""

        def work(connection: Connection) -> None:
            append_act(connection, act)
            if refusal := _refusal(connection, invitation, limits):
                raise _Refused(refusal)
            _see(connection, invitation, put_on_record=not limits.by_itself)
            connection.execute(insert(invitations).values(_values(invitation)))

        try:
            await self._writer.write(work, durable=True)
        except _Refused as refused:
            return refused.refusal
        return None

    async def mark_sent(self, invitation: Invitation, *, now: datetime) -> None:
        """Note that the smarthost has it."""
        await self._change(invitation, sent_at=now)

    async def withdraw(self, invitation: Invitation, *, now: datetime) -> None:
        """Note that it was not sent: its link is dead, and it counts for no limit."""
        await self._change(invitation, expires_at=now)

    async def find(self, token_digest: str) -> Invitation | None:
        """Return the invitation of a token."""
        found = _joined().where(invitations.c.token_digest == token_digest)
        return await self._long_work.read(lambda connection: _first(connection, found))

    async def confirmed(self, mailbox: Mailbox, customer: str | None) -> Invitation | None:
        """Return the latest invitation of this address, for this customer or none, that was answered Yes and not No."""
        confirmed = _joined().where(
            addresses.c.lookup_key == mailbox.lookup_key,
            invitations.c.customer == (customer or ""),
            invitations.c.answer == Answer.YES.value,
        )
        return await self._long_work.read(lambda connection: _first(connection, confirmed))

    async def take_try(self, invitation: Invitation, *, now: datetime) -> int | None:
        """Take one of the tries of a challenge before it is looked at; return how many are left behind it.

        None: there was none to take, or the invitation is not open. Of many at once no more succeed than there are.
        """
        open_ = (invitations.c.answer.is_(None), invitations.c.expires_at > now, invitations.c.tries_left > 0)
        taken = update(invitations).where(invitations.c.id == invitation.id, *open_)
        taken = taken.values(tries_left=invitations.c.tries_left - 1)

        def work(connection: Connection) -> int | None:
            left: int | None = connection.execute(taken.returning(invitations.c.tries_left)).scalar_one_or_none()
            return left

        return await self._writer.write(work, durable=True)

    async def confirm(self, invitation: Invitation, voucher: Voucher, act: Act, *, answered_from: str) -> int | None:
        """Take a Yes, and vouch; return the number of the voucher.

        None: the invitation takes no Yes, or the address is flagged, by whomever.
        """

        def work(connection: Connection) -> int:
            append_act(connection, act)
            if _is_flagged(connection, invitation):
                raise _TooLate
            _take_answer(connection, invitation, Answer.YES, invitations.c.answer.is_(None), act.at, answered_from)
            number = add_voucher(connection, invitation.mailbox, voucher, at=act.at)
            connection.execute(_this(invitation).values(voucher_id=number))
            return number

        try:
            return await self._writer.write(work, durable=True)
        except _TooLate:
            return None

    async def disown(self, invitation: Invitation, flag: Flag, act: Act, *, answered_from: str) -> bool:
        """Take a No, flag the address, and revoke the voucher that a Yes before gave; say whether it was taken."""
        no_no_yet = or_(invitations.c.answer.is_(None), invitations.c.answer == Answer.YES.value)

        def work(connection: Connection) -> None:
            append_act(connection, act)
            _take_answer(connection, invitation, Answer.NO, no_no_yet, act.at, answered_from)
            set_flag(connection, invitation.mailbox, flag, at=act.at)
            given = select(invitations.c.voucher_id).where(invitations.c.id == invitation.id).scalar_subquery()
            connection.execute(update(vouchers).where(vouchers.c.id == given).values(revoked_at=act.at))

        try:
            await self._writer.write(work, durable=True)
        except _TooLate:
            return False
        return True

    async def _change(self, invitation: Invitation, **values: Any) -> None:
        change = _this(invitation).values(**values)

        def work(connection: Connection) -> None:
            connection.execute(change)

        await self._writer.write(work, durable=True)


def _is_flagged(connection: Connection, invitation: Invitation) -> bool:
    is_this = addresses.c.lookup_key == invitation.mailbox.lookup_key
    flagged = select(addresses.c.id).where(is_this, addresses.c.flag_since.is_not(None))
    return connection.execute(flagged).first() is not None


def _refusal(connection: Connection, invitation: Invitation, limits: InvitationLimits) -> InvitationRefusal | None:
    known = select(addresses.c.id, addresses.c.flag_since).where(
        addresses.c.lookup_key == invitation.mailbox.lookup_key
    )
    address = connection.execute(known).first()
    if address is None and invitation.kind is InvitationKind.DISOWN:
        return InvitationRefusal.NOT_ON_RECORD
    if address is not None and address.flag_since is not None:
        return InvitationRefusal.FLAGGED
    if address is not None and _is_shared(connection, address.id, invitation, limits):
        return InvitationRefusal.SHARED
    made = _made_since(invitation, invitation.created_at - PAUSE)
    if address is not None and _count(connection, *made, invitations.c.address_id == address.id):
        return InvitationRefusal.INVITED_BEFORE
    made = _made_since(invitation, invitation.created_at - CAP_PERIOD)
    if _count(connection, *made) >= limits.max_a_day:
        return InvitationRefusal.CAP_REACHED
    return None


def _is_shared(connection: Connection, address_id: int, invitation: Invitation, limits: InvitationLimits) -> bool:
    """Whether the address is on record for so many that this invitation is not for it."""
    if invitation.kind is InvitationKind.DISOWN:
        return False
    bound = select(func.count()).select_from(bindings).where(bindings.c.address_id == address_id)
    if invitation.customer is None:
        return connection.execute(bound).scalar_one() > 1
    others = bound.where(bindings.c.customer != invitation.customer)
    return limits.by_itself and connection.execute(others).scalar_one() > 0


def _made_since(invitation: Invitation, since: datetime) -> tuple[ColumnElement[bool], ...]:
    """The conditions for those of the same kind that were made since then, and sent or are on their way."""
    now = invitation.created_at
    on_its_way = and_(invitations.c.expires_at > now, invitations.c.created_at > now - SENDING)
    return (
        invitations.c.kind == invitation.kind.value,
        invitations.c.created_at > since,
        or_(invitations.c.sent_at.is_not(None), on_its_way),
    )


def _count(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(invitations).where(*conditions)
    count: int = connection.execute(query).scalar_one()
    return count


def _see(connection: Connection, invitation: Invitation, *, put_on_record: bool) -> None:
    """Have a number for the address; who invites on purpose says that it stands in the customer's records."""
    if not put_on_record:
        know_address(connection, invitation.mailbox)
        return
    see_address(connection, invitation.mailbox, invitation.created_at)
    if invitation.customer is not None:
        see_bindings(connection, {(invitation.mailbox.lookup_key, invitation.customer): invitation.created_at})


def _take_answer(
    connection: Connection,
    invitation: Invitation,
    answer: Answer,
    takes_it: ColumnElement[bool],
    at: datetime,
    answered_from: str,
) -> None:
    """Take an answer by compare-and-set: of two at once one finds the other."""
    taken = _this(invitation).where(takes_it, invitations.c.expires_at > at)
    values = {"answer": answer.value, "answered_at": at, "answered_from": answered_from}
    if not connection.execute(taken.values(values)).rowcount:
        raise _TooLate


def _this(invitation: Invitation) -> Any:
    return update(invitations).where(invitations.c.id == invitation.id)


def _joined() -> Select[Any]:
    """All there is of invitations, the latest first."""
    query = select(invitations, addresses.c.lookup_key).join(addresses, addresses.c.id == invitations.c.address_id)
    return query.order_by(invitations.c.id.desc())


def _first(connection: Connection, query: Select[Any]) -> Invitation | None:
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _invitation(row)


def _values(invitation: Invitation) -> dict[str, Any]:
    challenge = invitation.challenge
    key = invitation.mailbox.lookup_key
    return {
        "id": invitation.id,
        "kind": invitation.kind.value,
        "address_id": select(addresses.c.id).where(addresses.c.lookup_key == key).scalar_subquery(),
        "address": invitation.mailbox.text,
        "customer": invitation.customer or "",
        "token_digest": invitation.token_digest,
        "language": invitation.language.value,
        "created_at": invitation.created_at,
        "created_by": invitation.created_by,
        "expires_at": invitation.expires_at,
        "challenge_label": challenge and challenge.label,
        "challenge_hash": challenge and challenge.answer_hash,
        "tries_left": invitation.tries_left,
    }


def _invitation(row: Row[Any]) -> Invitation:
    return Invitation(
        id=row.id,
        kind=InvitationKind(row.kind),
        mailbox=stored_mailbox(row.address, row.lookup_key),
        customer=row.customer or None,
        token_digest=row.token_digest,
        language=Language(row.language),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        challenge=Challenge(row.challenge_label, row.challenge_hash) if row.challenge_hash else None,
        tries_left=row.tries_left,
        sent_at=row.sent_at,
        answered_at=row.answered_at,
        answer=Answer(row.answer) if row.answer else None,
        answered_from=row.answered_from,
        voucher_number=row.voucher_id,
    )
