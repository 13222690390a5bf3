"""What is recorded of a transaction."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest

from smtpguard.domain.application import Application, Origin
from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.domain.envelope import NULL_REVERSE_PATH
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.message import read_header
from smtpguard.domain.policy import Policy
from smtpguard.domain.reply import R250_OK, R451_ABORTED, R451_STORE_UNAVAILABLE, Reply
from smtpguard.service.record import MAX_LOGGED_RECIPIENTS, Outcome, TransactionRecord

BEGAN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ENDED = BEGAN + timedelta(seconds=1.5)
REFUSAL = Reply(550, "5.1.1", "no such user")
QUEUED = Reply(250, "2.0.0", "queued as 1")


def decision(address: str, verdict: Verdict, reason: Reason, would_be: Verdict | None = None) -> Decision:
    return Decision(parse_mailbox(address), verdict, reason, would_be)


RELAYED = decision("alice@verified.example", Verdict.RELAY, Reason.VERIFIED)
KEPT = decision("xyz@provider.example", Verdict.QUARANTINE, Reason.UNKNOWN)
REJECTED = decision("bob@verified.example", Verdict.REJECT, Reason.FLAGGED)
DEFERRED = decision("eve@verified.example", Verdict.DEFER, Reason.STORE_UNAVAILABLE)
REFUSED = decision("gone@verified.example", Verdict.RELAY, Reason.VERIFIED)


@pytest.fixture
def record() -> TransactionRecord:
    application = Application("crm", (ip_network("127.0.0.0/8"),), Policy())
    record = TransactionRecord("T1", Origin(application, "127.0.0.1", "app", "ESMTP"), NULL_REVERSE_PATH, BEGAN)
    record.accepted(RELAYED)
    record.accepted(KEPT)
    record.refused(REJECTED, Reply(550, "5.7.1", "stopped"))
    record.refused(DEFERRED, R451_STORE_UNAVAILABLE)
    record.refused(REFUSED, REFUSAL)
    return record


def ledger(record: TransactionRecord, outcome: Outcome, reply: Reply | None) -> dict[str, str]:
    return {
        entry.decision.recipient.text.partition("@")[0]: entry.smarthost_reply
        for entry in record.ledger_entries(outcome, reply, ENDED)
    }


AT_RCPT = {"bob": "", "gone": "550 5.1.1 no such user"}


@pytest.mark.parametrize(
    ("outcome", "reply", "entries"),
    [
        (Outcome.ACCEPTED, QUEUED, AT_RCPT | {"alice": "250 2.0.0 queued as 1", "xyz": ""}),
        (Outcome.REFUSED, REFUSAL, AT_RCPT | {"alice": "550 5.1.1 no such user"}),
        (Outcome.MAYBE_DELIVERED, None, AT_RCPT | {"alice": "lost after the final dot"}),
        (Outcome.DEFERRED, None, AT_RCPT),
        (Outcome.CLIENT_GONE, None, AT_RCPT),
        (Outcome.ABORTED, None, AT_RCPT),
        (Outcome.FAILED, None, AT_RCPT),
    ],
)
def test_ledger_has_the_verdicts_that_were_carried_out(record, outcome, reply, entries) -> None:
    """A deferred recipient has no verdict; one that was taken back from quarantine has none any more."""
    assert entries == ledger(record, outcome, reply)


def test_ledger_entry_carries_what_is_known_of_the_message(record) -> None:
    record.customer = "7"
    record.header(read_header(b"Subject: Invoice\r\nMessage-ID: <1@shop.example>\r\n\r\n"))
    entry = record.ledger_entries(Outcome.ACCEPTED, QUEUED, ENDED)[-1]

    assert ("T1", ENDED, "crm", "7", "<1@shop.example>") == (
        entry.transaction_id,
        entry.at,
        entry.application,
        entry.customer,
        entry.message_id,
    )
    assert (
        entry.subject_digest == "b832002da297545ff2c6cc36303a5f9b9779a2d7e47ba81c07ef86aca92181c0"
    )  # sha256sum of "Invoice"


def test_log_line(record) -> None:
    line = record.log_fields(Outcome.ACCEPTED, R250_OK, ENDED)

    assert line == {
        "transaction": "T1",
        "application": "crm",
        "peer": "127.0.0.1",
        "protocol": "ESMTP",
        "outcome": "accepted",
        "reply": "250 2.0.0 OK",
        "reverse_path": "",
        "recipient_count": 5,
        "recipients": [
            {"recipient": "alice@verified.example", "verdict": "relay", "reason": "verified"},
            {"recipient": "xyz@provider.example", "verdict": "quarantine", "reason": "unknown"},
            {
                "recipient": "bob@verified.example",
                "verdict": "reject",
                "reason": "flagged",
                "reply": "550 5.7.1 stopped",
            },
            {
                "recipient": "eve@verified.example",
                "verdict": "defer",
                "reason": "store-unavailable",
                "reply": str(R451_STORE_UNAVAILABLE),
            },
            {
                "recipient": "gone@verified.example",
                "verdict": "relay",
                "reason": "verified",
                "reply": "550 5.1.1 no such user",
            },
        ],
        "seconds": 1.5,
    }


def test_log_line_of_refused_recipients_is_bounded(record) -> None:
    for _ in range(200):
        record.refused(REFUSED, REFUSAL)
    line = record.log_fields(Outcome.ABORTED, R451_ABORTED, ENDED)

    assert (line["recipient_count"], len(line["recipients"])) == (205, MAX_LOGGED_RECIPIENTS)


@pytest.mark.parametrize("outcome", [Outcome.ABORTED, Outcome.CLIENT_GONE])
def test_no_reply_is_logged_where_none_was_heard(record, outcome) -> None:
    assert "reply" not in record.log_fields(outcome, R451_ABORTED, ENDED)


def test_log_line_is_bounded(record) -> None:
    for number in range(200):
        record.accepted(decision(f"u{number}@verified.example", Verdict.RELAY, Reason.VERIFIED))
    line = record.log_fields(Outcome.ACCEPTED, R250_OK, ENDED)

    assert line["recipient_count"] == 205
    assert len(line["recipients"]) == MAX_LOGGED_RECIPIENTS


def test_observed_verdict_is_logged(record) -> None:
    record.decided([decision("a@b.example", Verdict.RELAY, Reason.FLAGGED, Verdict.QUARANTINE)])
    line = record.log_fields(Outcome.ACCEPTED, R250_OK, ENDED)

    assert line["recipients"][0]["would_be"] == "quarantine"
