"""The decisions about the recipients of a transaction, from what the address book says: at RCPT, and after the data.

Both read the address book anew, so that a flag holds at once.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from smtpguard.domain.application import Application
from smtpguard.domain.decision import RELAY, VERIFIED, Decision, Reason, Verdict, decide, decide_after_data
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.policy import Policy
from smtpguard.domain.reply import (
    R250_RECIPIENT_OK,
    R451_STORE_UNAVAILABLE,
    R550_FLAGGED,
    R550_NOT_VERIFIED,
    Reply,
)
from smtpguard.domain.standing import Customer, CustomerUnnamed
from smtpguard.storage import Store

_NOT_YET: Final = CustomerUnnamed.NOT_YET


async def decide_at_rcpt(
    store: Store, recipient: Mailbox, policy: Policy, *, now: datetime
) -> tuple[Decision, datetime | None]:
    """Decide about one recipient, before the customer is known; with since when it is vouched for, if it is for that.

    Raises StoreError.
    """
    facts = (await store.address_book.facts([recipient.lookup_key], customer=None, now=now))[recipient.lookup_key]
    decision = decide(recipient, facts, _NOT_YET, policy)
    since = facts.vouched_since if decision.reason is VERIFIED else None
    return decision, since and min(since, now)


async def decide_again(
    store: Store, before: Sequence[Decision], policy: Policy, *, customer: Customer, now: datetime
) -> list[Decision]:
    """Decide about all recipients in one look-up: a flag set since RCPT counts, and the customer is known now.

    One decision for each before, in their order. Raises StoreError.
    """
    named = customer if isinstance(customer, str) else None
    keys = list({decision.recipient.lookup_key for decision in before})
    facts = await store.address_book.facts(keys, customer=named, now=now)
    if named is not None:
        # An address-wide voucher counts for one customer only, so the first message of a customer puts the pair on
        # record before it is judged: of two first messages at the same moment one at least sees the other.
        new = [key for key in keys if facts[key].rests_on_address_wide_voucher and not facts[key].bound_to_customer]
        if new:
            await store.address_book.bind(new, customer=named, now=now)
            facts |= await store.address_book.facts(new, customer=named, now=now)
    return [
        decide_after_data(each, decide(each.recipient, facts[each.recipient.lookup_key], customer, policy))
        for each in before
    ]


def reply_to_rcpt(decision: Decision, application: Application) -> Reply | None:
    """Return the guard's own reply, None where it is for the smarthost to say.

    Where the message may turn out to be verification mail, nobody is rejected yet for want of a verification.
    """
    if decision.verdict is RELAY:
        return None
    match decision.verdict:
        case Verdict.QUARANTINE:
            return R250_RECIPIENT_OK
        case Verdict.REJECT:
            is_open = application.may_verify and decision.awaits_verification
            return R250_RECIPIENT_OK if is_open else rejection(decision)
        case Verdict.DEFER:
            return R451_STORE_UNAVAILABLE


def rejection(decision: Decision) -> Reply:
    """Return the refusal of a recipient who is rejected."""
    return R550_FLAGGED if decision.reason is Reason.FLAGGED else R550_NOT_VERIFIED
