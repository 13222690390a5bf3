"""The recipients of a transaction that were accepted, and what becomes of them at the end of data."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from smtpguard.domain.decision import RELAY, Decision, Verdict, kept_if_rejected
from smtpguard.domain.envelope import ForwardPath, MailParameters
from smtpguard.domain.ids import quarantined_id
from smtpguard.domain.quarantined import QuarantinedMessage, QuarantineState
from smtpguard.domain.reply import R451_ABORTED, Reply
from smtpguard.relay.smarthost import SmarthostTransaction
from smtpguard.service.decisions import rejection
from smtpguard.service.record import Ended, Outcome, TransactionRecord


class Accepted(NamedTuple):
    """A recipient whose RCPT got a positive reply."""

    decision: Decision
    path: ForwardPath

    @property
    def is_relayed(self) -> bool:
        """Whether the smarthost gets the message for this recipient."""
        return self.decision.verdict is RELAY


async def offer_anew(
    relay: SmarthostTransaction, before: Sequence[Accepted], after: Sequence[Accepted]
) -> Mapping[int, Reply]:
    """Have the smarthost know of exactly those who are relayed to: begin again without some, or offer it more.

    Returns the refusals of those that it was not asked about before, by their place. Raises Ended where it refuses one
    that it took before, and SmarthostUnavailable.
    """
    known = {number for number, each in enumerate(before) if each.is_relayed}
    wanted = [number for number, each in enumerate(after) if each.is_relayed]
    if not wanted:
        await relay.abort()
        return {}
    if known.issubset(wanted):
        offer, asked = relay.rcpt, [number for number in wanted if number not in known]
    else:
        offer, asked = relay.restart, wanted
    if not asked:
        return {}
    replies = await offer([after[number].path for number in asked])
    refused = {number: reply for number, reply in zip(asked, replies, strict=True) if not reply.is_positive}
    for number in known.intersection(refused):  # the application tries again and hears it at RCPT
        raise Ended(R451_ABORTED, Outcome.DEFERRED, refused[number])
    return refused


def settle_rejected(decided: Sequence[Accepted], record: TransactionRecord) -> list[Accepted]:
    """Refuse the message where all are rejected (raises Ended); where some are, keep it for them: they got a 250."""
    if all(each.decision.verdict is Verdict.REJECT for each in decided):
        reply = rejection(decided[0].decision)
        record.rejected(reply)
        raise Ended(reply, Outcome.REFUSED)
    settled = [each._replace(decision=kept_if_rejected(each.decision)) for each in decided]
    record.decided([each.decision for each in settled])
    return settled


def kept_messages(
    kept: Sequence[Accepted],
    record: TransactionRecord,
    parameters: MailParameters,
    *,
    subject: str,
    size: int,
    now: datetime,
) -> list[QuarantinedMessage]:
    """Build what goes into quarantine, one for each of these recipients; ``size`` without dot-stuffing."""
    return [
        QuarantinedMessage(
            id=quarantined_id(record.transaction_id, number),
            transaction_id=record.transaction_id,
            state=QuarantineState.QUARANTINED,
            recipient=each.path.recipient,
            reverse_path=record.reverse_path,
            parameters=parameters,
            rcpt_parameters=each.path.parameters,
            application=record.origin.application.name,
            customer=record.customer,
            reason=each.decision.reason,
            received_at=now,
            subject=subject,
            size=size,
        )
        for number, each in enumerate(kept, start=1)
    ]
