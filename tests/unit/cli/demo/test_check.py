"""The judge of the demo sees each broken promise."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from smtpguard.cli.demo.cast import (
    CUSTOMERS,
    INVOICES,
    LETTERS,
    NILS,
    REMINDER,
    STRANGERS,
    VERIFIED,
    XYZ,
    address_book,
    owner_of,
)
from smtpguard.cli.demo.check import Facts, failures, for_strangers, reached_strangers
from smtpguard.cli.demo.crm import Submission
from smtpguard.cli.demo.mail_server import Delivery
from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.domain.envelope import MailParameters
from smtpguard.domain.invitation import Answer
from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.quarantined import QuarantinedMessage, QuarantineState

NOW = datetime(2019, 5, 31, tzinfo=UTC)
INVITATION = "<invitation-1@shop.example>"


def delivery(recipient: str, message_id: str) -> Delivery:
    return Delivery(recipient, message_id, b"")


def quarantined(number: int, recipient: str) -> QuarantinedMessage:
    mailbox = parse_mailbox(recipient)
    return QuarantinedMessage(
        id=f"T{number}-1",
        transaction_id=f"T{number}",
        state=QuarantineState.QUARANTINED,
        recipient=mailbox,
        reverse_path=mailbox,
        parameters=MailParameters(),
        application="default",
        customer=None,
        reason=Reason.NOT_VERIFIED,
        received_at=NOW,
    )


def recorded(number: int, recipient: str) -> LedgerEntry:
    decision = Decision(parse_mailbox(recipient), Verdict.RELAY, Reason.VERIFIED)
    return LedgerEntry(f"T{number}", NOW, "default", decision, None, "250 OK", "", "")


@pytest.fixture
def facts() -> Facts:
    """Everything as it should be, after a Yes."""
    offered = [(letter, recipient) for letter in LETTERS for recipient in letter.recipients]
    delivered = [
        (letter, recipient)
        for letter, recipient in offered
        if recipient == letter.customer.mailbox and letter != REMINDER
    ]
    return Facts(
        submissions=[Submission(each, each.recipients, 250, f"2.0.0 OK id=T{each.number}") for each in LETTERS],
        deliveries=[
            delivery(NILS.mailbox, INVITATION),
            *(delivery(recipient, letter.message_id) for letter, recipient in delivered),
        ],
        quarantined=[quarantined(each[0].number, each[1]) for each in offered if each not in delivered],
        ledger=[recorded(letter.number, recipient) for letter, recipient in delivered],
        answer=Answer.YES,
    )


def test_all_is_well(facts):
    assert failures(facts) == []


def test_letter_to_a_stranger(facts):
    letter = next(letter for letter in INVOICES if XYZ in letter.recipients)
    more = replace(
        facts,
        deliveries=[*facts.deliveries, delivery(XYZ, letter.message_id)],
        ledger=[*facts.ledger, recorded(letter.number, XYZ)],
    )

    assert failures(more) == [f"{STRANGERS[XYZ]} got a letter about {letter.customer.name}"]
    assert reached_strangers(more.deliveries) == [(letter, XYZ)]


def test_letter_in_spite_of_a_flag(facts):
    mailbox = REMINDER.customer.mailbox
    more = replace(
        facts,
        deliveries=[*facts.deliveries, delivery(mailbox, REMINDER.message_id)],
        ledger=[*facts.ledger, recorded(REMINDER.number, mailbox)],
    )

    assert failures(more) == [f"{REMINDER.customer.name} got a letter in spite of the flag"]


def test_customer_who_got_nothing(facts):
    anna = VERIFIED[0]
    fewer = replace(
        facts,
        deliveries=[each for each in facts.deliveries if each.recipient != anna.mailbox],
        ledger=[each for each in facts.ledger if each.decision.recipient.text != anna.mailbox],
        quarantined=[*facts.quarantined, quarantined(1, anna.mailbox)],
    )

    assert failures(fewer) == [f"{anna.name} got no invoice"]


def test_invoice_that_comes_before_the_yes(facts):
    assert failures(replace(facts, answer=None)) == [f"{NILS.name} got his invoice without a Yes"]


def test_invitation_that_does_not_come(facts):
    assert failures(replace(facts, deliveries=facts.deliveries[1:])) == [f"{NILS.name} got no invitation"]


def test_stranger_who_is_bothered(facts):
    more = replace(facts, deliveries=[*facts.deliveries, delivery(XYZ, INVITATION)])

    assert failures(more) == [f"{STRANGERS[XYZ]} got an invitation"]
    assert reached_strangers(more.deliveries) == []


def test_message_that_is_nowhere(facts):
    lost = facts.quarantined[0]
    fewer = replace(facts, quarantined=facts.quarantined[1:])

    assert failures(fewer) == [f"letter {lost.transaction_id[1:]} to {lost.recipient} is lost"]


def test_letter_that_was_refused(facts):
    refused = replace(facts.submissions[-1], code=451, text="4.3.0 later")
    changed = replace(facts, submissions=[*facts.submissions[:-1], refused])

    assert failures(changed) == [f"letter {REMINDER.number} was not accepted: 451 4.3.0 later"]


def test_ledger_that_lacks_a_delivery(facts):
    assert failures(replace(facts, ledger=facts.ledger[1:])) == [
        f"ledger and mail server disagree about T1 to {facts.deliveries[1].recipient}"
    ]


def test_cast_owns_what_the_story_says():
    assert all(owner_of(customer.mailbox) == customer.name for customer in (*VERIFIED, NILS))
    assert all(customer.addresses for customer in CUSTOMERS)
    assert len({recipient for _, recipient in for_strangers(INVOICES)}) == len(STRANGERS) + 1


def test_address_book_has_a_column_for_each_cell():
    assert {line.count(",") for line in address_book()} == {5}


def test_recipient_that_was_refused(facts):
    """Bruno's invoice goes to two addresses."""
    bruno = facts.submissions[1]
    changed = replace(
        facts,
        submissions=[facts.submissions[0], replace(bruno, taken=bruno.taken[:1]), *facts.submissions[2:]],
    )

    assert failures(changed) == [f"letter 2 was accepted for {bruno.taken[0]} only"]
