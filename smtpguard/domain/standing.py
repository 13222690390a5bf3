"""What the address book says of an address: its standing, derived from flag, vouchers and bindings.

A voucher is for an (address, customer) pair, or for the address alone ("address-wide"). An address-wide voucher says
that a person reads the mailbox, and nothing about whose letters belong there: with a customer known it counts only
while the address is on record for no other customer. A flag wins over every voucher and erases none.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Standing(Enum):
    """What the address book says of an address."""

    UNKNOWN = "unknown"
    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    FLAGGED = "flagged"


class CustomerUnnamed(Enum):
    """Why there is no customer reference to judge by."""

    NOT_YET = "not-yet"
    """The header has not been read: the recipient may belong to any customer on record."""
    NONE = "none"
    """The application named no customer."""
    UNCLEAR = "unclear"
    """The application named several, or one that cannot be a reference."""


Customer = str | CustomerUnnamed

MAX_CUSTOMER_CHARACTERS = 200
_CUSTOMER_REFERENCE = re.compile(r"[!-~]+(?: [!-~]+)*")


def is_customer_reference(text: str) -> bool:
    """Whether a text can name a customer: printable ASCII words with single spaces, at most 200 characters."""
    return len(text) <= MAX_CUSTOMER_CHARACTERS and _CUSTOMER_REFERENCE.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class AddressFacts:
    """What one look-up reads of an address, for one customer or none. Vouchers are those that hold now.

    Those about the customer that was asked about are false without one: nothing is decided by them then.
    """

    on_record: bool
    """There is a row for the address."""
    flagged: bool
    vouched_address_wide: bool
    vouched_for_any_customer: bool
    vouched_for_customer: bool
    bound_to_customer: bool
    """The pair is on record."""
    bound_to_others: bool
    """The address is on record for another customer than this one."""
    vouched_since: datetime | None = None
    """When the newest voucher was given that holds, whoever it is for."""

    @property
    def rests_on_address_wide_voucher(self) -> bool:
        """Whether it is for want of a voucher of the customer's own that an address-wide one would have to do."""
        return self.vouched_address_wide and not self.vouched_for_customer


NOTHING_ON_RECORD = AddressFacts(
    on_record=False,
    flagged=False,
    vouched_address_wide=False,
    vouched_for_any_customer=False,
    vouched_for_customer=False,
    bound_to_customer=False,
    bound_to_others=False,
)


@dataclass(frozen=True, slots=True)
class Flag:
    """A statement that nothing must be sent to an address."""

    reason: str
    since: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Binding:
    """An address that stands in the records of a customer."""

    customer: str
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Voucher:
    """One verification of an address, for one customer or (``customer`` None) address-wide."""

    customer: str | None
    method: str
    verified_at: datetime
    by: str
    evidence: str = ""
    valid_until: datetime | None = None
    revoked_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it counts at this moment."""
        return self.revoked_at is None and (self.valid_until is None or now < self.valid_until)


@dataclass(frozen=True, slots=True)
class AddressRecord:
    """All that is on record of one address, for people to read."""

    address: str
    lookup_key: str
    flag: Flag | None
    bindings: tuple[Binding, ...]
    vouchers: tuple[Voucher, ...]
    first_seen: datetime | None
    last_seen: datetime | None
    """Both None: there is no row for the address, though live traffic may have bound customers to it."""

    def standing(self, now: datetime) -> Standing:
        """Its standing where no customer is asked about: any voucher that holds makes it verified."""
        if self.flag is not None:
            return Standing.FLAGGED
        if any(voucher.holds(now) for voucher in self.vouchers):
            return Standing.VERIFIED
        return Standing.UNKNOWN if self.first_seen is None else Standing.UNVERIFIED
