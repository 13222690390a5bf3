"""The bodies of requests and answers. Those of requests are strict: no unknown field, no value of another kind."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from smtpguard.domain.invitation import MAX_CHALLENGE_CHARACTERS, Language, is_answer
from smtpguard.domain.quarantined import QuarantinedMessage
from smtpguard.domain.standing import AddressRecord, is_customer_reference

MAX_ENTRIES = 10_000
MAX_BINDINGS = 1000

T = TypeVar("T")

AddressText = Annotated[str, Meta(max_length=1000, description="An address, as in RCPT TO.", examples=["a@b.example"])]
CustomerText = Annotated[str, Meta(max_length=200, description="The reference of a customer.", examples=["4711"])]
Line = Annotated[str, Meta(max_length=500, description="One line of printable text.")]
Why = Annotated[str, Meta(min_length=1, max_length=500, description="Why, in one line, for the audit log.")]
Actor = Annotated[str, Meta(min_length=1, max_length=100, description="For whom the system acts; for the audit log.")]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a request brings."""


class ActBody(Body, frozen=True, kw_only=True):
    """What a request brings that changes something."""

    on_behalf_of: Actor | None = None

    def __post_init__(self) -> None:
        _check(self.on_behalf_of, _is_words, "on_behalf_of: it wants one line of printable text")


class CheckBody(Body, frozen=True, kw_only=True):
    """An address that is about to be saved."""

    address: AddressText
    customer: CustomerText | None = None
    application: Annotated[str, Meta(max_length=100)] | None = None

    def __post_init__(self) -> None:
        _check(self.customer, is_customer_reference, _CUSTOMER)


class LookupBody(Body, frozen=True, kw_only=True):
    """An address."""

    address: AddressText


class VoucherBody(Body, frozen=True, kw_only=True):
    """A verification that the other system vouches for."""

    customer: CustomerText | None = None
    verified_at: datetime | None = None
    source: Line = ""

    def __post_init__(self) -> None:
        _check(self.customer, is_customer_reference, _CUSTOMER)
        _check(self.source, str.isprintable, "source: it wants one line of printable text")
        _check(self.verified_at, _is_time, "verified_at: it wants a time with a zone")


class PutBody(ActBody, frozen=True, kw_only=True):
    """An address with the customers that it is on record for, and what vouches for it."""

    address: AddressText
    bindings: Annotated[list[CustomerText], Meta(max_length=MAX_BINDINGS)] = []
    vouchers: Annotated[list[VoucherBody], Meta(max_length=MAX_BINDINGS)] = []

    def __post_init__(self) -> None:
        super().__post_init__()
        for customer in self.bindings:
            _check(customer, is_customer_reference, _CUSTOMER)


class EntryBody(Body, frozen=True, kw_only=True):
    """A row of an import; its fields are the columns of `smtpguard address import`."""

    address: AddressText
    standing: Annotated[str, Meta(max_length=20)] = ""
    customer: Annotated[str, Meta(max_length=1000)] = ""
    verified_at: Annotated[str, Meta(max_length=100)] = ""
    source: Annotated[str, Meta(max_length=1000)] = ""
    reason: Annotated[str, Meta(max_length=1000)] = ""


class ImportBody(ActBody, frozen=True, kw_only=True):
    """A batch of addresses."""

    entries: Annotated[list[EntryBody], Meta(min_length=1, max_length=MAX_ENTRIES)]


class ReasonedBody(ActBody, frozen=True, kw_only=True):
    """An act that wants a reason."""

    reason: Why

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.reason, _is_words, "reason: it wants one line of printable text")


class FlagBody(ReasonedBody, frozen=True, kw_only=True):
    """An address to be flagged, or whose flag is to be taken away."""

    address: AddressText


class VerifyBody(FlagBody, frozen=True, kw_only=True):
    """An address that is vouched for, address-wide where no customer is named."""

    customer: CustomerText | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.customer, is_customer_reference, _CUSTOMER)


class ChallengeBody(Body, frozen=True, kw_only=True):
    """What a Yes asks for, such as "customer number", and the answer that it needs."""

    label: Annotated[str, Meta(min_length=1, max_length=MAX_CHALLENGE_CHARACTERS)]
    answer: Annotated[str, Meta(min_length=1, max_length=MAX_CHALLENGE_CHARACTERS)]

    def __post_init__(self) -> None:
        _check(self.label, _is_words, "label: it wants one line of printable text")
        _check(self.answer, is_answer, "answer: it wants more than spaces")


class InvitationBody(ActBody, frozen=True, kw_only=True):
    """Who is invited, for which customer, or for the address alone."""

    address: AddressText
    customer: CustomerText | None = None
    language: Language | None = None
    challenge: ChallengeBody | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.customer, is_customer_reference, _CUSTOMER)


class ReleaseBody(ReasonedBody, frozen=True, kw_only=True):
    """A message to be sent."""

    despite_flag: bool = False


class SettleBody(ReasonedBody, frozen=True, kw_only=True):
    """What became of a maybe-sent message."""

    sent: bool


class CheckAnswer(msgspec.Struct):
    """What is known of an address, and what would be done with mail to it."""

    valid: bool
    why: str | None = None
    address: str | None = None
    standing: str | None = None
    customers: int | None = None
    verdict: str | None = None
    reason: str | None = None


class FlagAnswer(msgspec.Struct):
    """A flag."""

    reason: str
    since: datetime
    by: str


class BindingAnswer(msgspec.Struct):
    """A customer that an address is on record for."""

    customer: str
    first_seen: datetime
    last_seen: datetime


class VoucherAnswer(msgspec.Struct):
    """A verification."""

    customer: str | None
    method: str
    verified_at: datetime
    by: str
    evidence: str
    valid_until: datetime | None
    revoked_at: datetime | None


class AddressAnswer(msgspec.Struct):
    """All that is on record of an address."""

    address: str
    standing: str
    flag: FlagAnswer | None
    bindings: list[BindingAnswer]
    vouchers: list[VoucherAnswer]


class AddressPage(msgspec.Struct):
    """Addresses by their lookup keys; `next` is what to ask for as `after`, null at the end."""

    items: list[AddressAnswer]
    next: str | None


class RejectedEntry(msgspec.Struct):
    """An entry that was left out: its number, from 1, and why."""

    entry: int
    why: str


class ImportAnswer(msgspec.Struct):
    """What became of a batch."""

    imported: int
    rejected: list[RejectedEntry]


class InvitationAnswer(msgspec.Struct):
    """An invitation that was sent."""

    id: str
    expires_at: datetime
    language: str


class MessageAnswer(msgspec.Struct):
    """A quarantined message."""

    id: str
    state: str
    recipient: str
    reverse_path: str
    application: str
    customer: str | None
    reason: str
    subject: str
    size: int
    received_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    decided_why: str | None


class MessagePage(msgspec.Struct):
    """Messages, the oldest first; `next` is what to ask for as `after`, null at the end."""

    items: list[MessageAnswer]
    next: str | None


def address_answer(record: AddressRecord, now: datetime) -> AddressAnswer:
    """Tell of an address."""
    flag = record.flag
    return AddressAnswer(
        address=record.address,
        standing=record.standing(now).value,
        flag=FlagAnswer(flag.reason, flag.since, flag.by) if flag else None,
        bindings=[BindingAnswer(each.customer, each.first_seen, each.last_seen) for each in record.bindings],
        vouchers=[
            VoucherAnswer(
                each.customer,
                each.method,
                each.verified_at,
                each.by,
                each.evidence,
                each.valid_until,
                each.revoked_at,
            )
            for each in record.vouchers
        ],
    )


def message_answer(message: QuarantinedMessage) -> MessageAnswer:
    """Tell of a message."""
    return MessageAnswer(
        id=message.id,
        state=message.state.value,
        recipient=message.recipient.text,
        reverse_path=str(message.reverse_path),
        application=message.application,
        customer=message.customer,
        reason=message.reason.value,
        subject=message.subject,
        size=message.size,
        received_at=message.received_at,
        decided_at=message.decided_at,
        decided_by=message.decided_by,
        decided_why=message.decided_why,
    )


_CUSTOMER = "customer: it wants printable ASCII words, at most 200 characters"


def _check(value: T | None, holds: Callable[[T], bool], complaint: str) -> None:
    """Raise ValueError, which msgspec makes an error of the body."""
    if value is not None and not holds(value):
        raise ValueError(complaint)


def _is_words(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def _is_time(at: datetime) -> bool:
    return at.tzinfo is not None
