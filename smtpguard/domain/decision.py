"""The decision about one recipient: pure, from what the address book says and the policy."""

from enum import Enum
from typing import Final, Literal, NamedTuple

from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.policy import Mode, Policy
from smtpguard.domain.standing import AddressFacts, Customer, CustomerUnnamed, Standing


class Verdict(Enum):
    """What is done with the message for one recipient."""

    RELAY = "relay"
    QUARANTINE = "quarantine"
    REJECT = "reject"
    DEFER = "defer"


class Reason(Enum):
    """Why: a closed list, in logs, listings and the store."""

    VERIFIED = "verified"
    TRUSTED_DOMAIN = "trusted-domain"
    UNKNOWN = "unknown"
    NOT_VERIFIED = "not-verified"
    NOT_VERIFIED_FOR_CUSTOMER = "not-verified-for-customer"
    SHARED_ADDRESS = "shared-address"
    CUSTOMER_UNCLEAR = "customer-unclear"
    FLAGGED = "flagged"
    VERIFICATION_MAIL = "verification-mail"
    """The application's own way of verifying the address, such as a sign-up code."""
    RELEASED = "released"
    """It was released from quarantine, by an operator or after the recipient's Yes."""
    STORE_UNAVAILABLE = "store-unavailable"


# Before Python 3.12 a look at a member of an enumeration costs as much as a call; these are for each recipient.
RELAY: Final = Verdict.RELAY
VERIFIED: Final = Reason.VERIFIED
_NOT_YET: Final = CustomerUnnamed.NOT_YET
_NONE: Final = CustomerUnnamed.NONE
_UNCLEAR: Final = CustomerUnnamed.UNCLEAR
_FLAGGED: Final = Standing.FLAGGED
_IS_VERIFIED = Standing.VERIFIED, Reason.VERIFIED

INVITED_BY_ITSELF = frozenset({Reason.UNKNOWN, Reason.NOT_VERIFIED, Reason.NOT_VERIFIED_FOR_CUSTOMER})
"""For what kept mail its recipient is invited without anybody's doing."""
RELEASED_BY_YES = INVITED_BY_ITSELF | {Reason.SHARED_ADDRESS}
"""What kept mail a Yes lets go; who shares an address is invited by an operator, or not at all."""
LACKING_VERIFICATION = RELEASED_BY_YES | {Reason.CUSTOMER_UNCLEAR}
"""What is for want of a verification alone; where nobody knows whose the mail is, no Yes can be for it."""


class Decision(NamedTuple):
    """What is done for one recipient, and why.

    ``would_be`` is set under ``mode = "observe"`` where the verdict would have been another one than *relay*.
    """

    recipient: Mailbox
    verdict: Verdict
    reason: Reason
    would_be: Verdict | None = None

    @property
    def awaits_verification(self) -> bool:
        """Whether the recipient does not get the message, or would not, for want of a verification alone."""
        return self.reason in LACKING_VERIFICATION and (self.verdict is not Verdict.RELAY or self.would_be is not None)


def decide(recipient: Mailbox, facts: AddressFacts, customer: Customer, policy: Policy) -> Decision:
    """Decide about one recipient. ``facts`` must have been read for this recipient and this customer."""
    standing, reason = standing_for(facts, customer)
    if recipient.domain in policy.trusted_domains and standing is not _FLAGGED and not recipient.holds_route:
        # A mail server may send ``user%elsewhere@ours`` elsewhere, so that our domain in it vouches for nothing.
        return Decision(recipient, RELAY, Reason.TRUSTED_DOMAIN)
    if reason is VERIFIED:
        return Decision(recipient, RELAY, reason)
    verdict = _verdict_on_unverified(standing, policy)
    if verdict is not RELAY and policy.mode is Mode.OBSERVE:
        return Decision(recipient, RELAY, reason, would_be=verdict)
    return Decision(recipient, verdict, reason)


def decide_after_data(before: Decision, after: Decision) -> Decision:
    """Join what RCPT was answered with what the end of data shows.

    Between the two a decision can only become stricter: the smarthost has not been asked about a recipient who was to
    be quarantined, and a recipient who got 250 can no longer be rejected alone, so that *reject* becomes *quarantine*;
    it stays for a recipient who was to be rejected and whose RCPT was accepted for what the message might be.
    """
    if after.verdict is RELAY:
        return after if before.verdict is RELAY else before
    return after if before.verdict is Verdict.REJECT else kept_if_rejected(after)


def kept_if_rejected(decision: Decision) -> Decision:
    """Quarantine for whom can no longer be rejected."""
    return decision._replace(verdict=Verdict.QUARANTINE) if decision.verdict is Verdict.REJECT else decision


def standing_for(facts: AddressFacts, customer: Customer) -> tuple[Standing, Reason]:
    """Derive the standing of an address for a customer."""
    if facts.flagged:
        return Standing.FLAGGED, Reason.FLAGGED
    if customer is _UNCLEAR:  # whatever else is lacking: no later voucher can be for this message
        return Standing.UNVERIFIED, Reason.CUSTOMER_UNCLEAR
    if not facts.on_record:
        return Standing.UNKNOWN, Reason.UNKNOWN
    if not (facts.vouched_address_wide or facts.vouched_for_any_customer):
        return Standing.UNVERIFIED, Reason.NOT_VERIFIED
    obstacle = _obstacle(facts, customer)
    return (Standing.UNVERIFIED, obstacle) if obstacle else _IS_VERIFIED


def _obstacle(
    facts: AddressFacts, customer: str | Literal[CustomerUnnamed.NOT_YET, CustomerUnnamed.NONE]
) -> Reason | None:
    """Why vouchers that hold do not count for this customer."""
    if customer is _NOT_YET:
        return None
    if customer is _NONE:
        return None if facts.vouched_address_wide else Reason.NOT_VERIFIED_FOR_CUSTOMER
    return _obstacle_for_named(facts)


def _obstacle_for_named(facts: AddressFacts) -> Reason | None:
    if facts.vouched_for_customer:
        return None
    if not facts.vouched_address_wide:
        return Reason.NOT_VERIFIED_FOR_CUSTOMER
    return Reason.SHARED_ADDRESS if facts.bound_to_others else None


def _verdict_on_unverified(standing: Standing, policy: Policy) -> Verdict:
    return Verdict(policy.flagged._value_ if standing is _FLAGGED else policy.unverified._value_)
