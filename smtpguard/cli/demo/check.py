"""The judgement: what really happened, from the mail server, the quarantine and the ledger, against who is who."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from smtpguard.cli.demo.cast import LETTERS, NILS, REMINDER, VERIFIED, Letter, owner_of
from smtpguard.cli.demo.crm import Submission
from smtpguard.cli.demo.mail_server import Delivery
from smtpguard.domain.decision import Verdict
from smtpguard.domain.invitation import Answer
from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.quarantined import QuarantinedMessage

_LETTERS = {letter.message_id: letter for letter in LETTERS}


@dataclass(frozen=True)
class Facts:
    """What happened."""

    submissions: Sequence[Submission]
    deliveries: Sequence[Delivery]
    quarantined: Sequence[QuarantinedMessage]
    ledger: Sequence[LedgerEntry]
    answer: Answer | None
    """What Nils has said by now to whether the mailbox is his."""


def delivered_letters(deliveries: Iterable[Delivery]) -> list[tuple[Letter, str]]:
    """Return each letter that was delivered, with the address; what else was delivered are invitations."""
    found = ((_LETTERS.get(delivery.message_id), delivery.recipient) for delivery in deliveries)
    return [(letter, recipient) for letter, recipient in found if letter is not None]


def for_strangers(letters: Iterable[Letter]) -> list[tuple[Letter, str]]:
    """Return each letter that would go to a stranger as it is addressed, with the stranger's address."""
    return [
        (letter, recipient)
        for letter in letters
        for recipient in letter.recipients
        if owner_of(recipient) != letter.customer.name
    ]


def reached_strangers(deliveries: Iterable[Delivery]) -> list[tuple[Letter, str]]:
    """Return each letter that did go to a stranger, with the stranger's address."""
    return [
        (letter, recipient)
        for letter, recipient in delivered_letters(deliveries)
        if owner_of(recipient) != letter.customer.name
    ]


def failures(facts: Facts) -> list[str]:
    """Return each broken promise in one sentence; none is success."""
    return [
        *_not_accepted(facts),
        *_disclosed(facts),
        *_not_served(facts),
        *_not_asked(facts),
        *_lost(facts),
        *_unlike_ledger(facts),
    ]


def _not_accepted(facts: Facts) -> Iterator[str]:
    for each in facts.submissions:
        if not each.accepted:
            yield f"letter {each.letter.number} was not accepted: {each.code} {each.text}"
        elif each.taken != each.letter.recipients:
            yield f"letter {each.letter.number} was accepted for {', '.join(each.taken)} only"


def _disclosed(facts: Facts) -> Iterator[str]:
    for letter, recipient in reached_strangers(facts.deliveries):
        yield f"{owner_of(recipient)} got a letter about {letter.customer.name}"
    if any(delivery.message_id == REMINDER.message_id for delivery in facts.deliveries):
        yield f"{REMINDER.customer.name} got a letter in spite of the flag"


def _not_served(facts: Facts) -> Iterator[str]:
    served = {(recipient, letter.customer) for letter, recipient in delivered_letters(facts.deliveries)}
    has_confirmed = facts.answer is Answer.YES
    for customer in (*VERIFIED, NILS) if has_confirmed else VERIFIED:
        if (customer.mailbox, customer) not in served:
            yield f"{customer.name} got no invoice"
    if (NILS.mailbox, NILS) in served and not has_confirmed:
        yield f"{NILS.name} got his invoice without a Yes"


def _not_asked(facts: Facts) -> Iterator[str]:
    """Nils is invited; whose address is flagged, or on record for several customers, is not bothered."""
    invited = [each.recipient for each in facts.deliveries if each.message_id not in _LETTERS]
    if NILS.mailbox not in invited:
        yield f"{NILS.name} got no invitation"
    for recipient in invited:
        if recipient != NILS.mailbox:
            yield f"{owner_of(recipient)} got an invitation"


def _lost(facts: Facts) -> Iterator[str]:
    """Every recipient of a letter that was answered 250 has it, or it is in quarantine."""
    delivered = {(delivery.message_id, delivery.recipient) for delivery in facts.deliveries}
    kept = {(message.transaction_id, message.recipient.lookup_key) for message in facts.quarantined}
    for each in facts.submissions:
        for recipient in each.taken if each.accepted else ():
            if (each.letter.message_id, recipient) not in delivered and (each.transaction_id, recipient) not in kept:
                yield f"letter {each.letter.number} to {recipient} is lost"


def _unlike_ledger(facts: Facts) -> Iterator[str]:
    """The ledger names exactly what the mail server has."""
    transactions = {each.letter.message_id: each.transaction_id for each in facts.submissions}
    delivered = {
        (transactions[letter.message_id], recipient) for letter, recipient in delivered_letters(facts.deliveries)
    }
    recorded = {
        (entry.transaction_id, entry.decision.recipient.lookup_key)
        for entry in facts.ledger
        if entry.decision.verdict is Verdict.RELAY
    }
    for transaction, recipient in delivered ^ recorded:
        yield f"ledger and mail server disagree about {transaction} to {recipient}"
