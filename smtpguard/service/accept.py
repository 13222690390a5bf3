"""Accept a transaction: from MAIL to the reply to the end of data.

The promise is kept here. After a positive reply to the end of data each accepted recipient's message is either
acknowledged by the smarthost or durably in quarantine. Whatever goes wrong before becomes a reply that leaves the
application responsible; nothing goes wrong into a relay.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from smtpguard.domain.application import Origin
from smtpguard.domain.decision import Decision, Reason, Verdict, decide, decide_after_data
from smtpguard.domain.envelope import MailParameters, ReversePath
from smtpguard.domain.ids import quarantined_id
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.message import (
    Field,
    HeaderTooBigError,
    customer_of,
    has_bare_line_end,
    header_fields,
    received_field,
    summarise,
    take_out,
    unstuff,
)
from smtpguard.domain.quarantined import MessageContent, QuarantinedMessage, QuarantineState
from smtpguard.domain.reply import (
    R250_OK,
    R250_RECIPIENT_OK,
    R451_ABORTED,
    R451_SMARTHOST_LOST,
    R451_SMARTHOST_UNAVAILABLE,
    R451_STORE_UNAVAILABLE,
    R452_STORE_FULL,
    R550_BARE_LINE_END,
    R550_FLAGGED,
    R550_NOT_VERIFIED,
    R552_TOO_BIG,
    Reply,
)
from smtpguard.domain.standing import Customer, CustomerUnnamed
from smtpguard.errors import SmarthostLost, SmarthostUnavailable, StoreError, StoreFull, StoreUnavailable
from smtpguard.relay.smarthost import Smarthost
from smtpguard.service.record import Outcome, TransactionRecord
from smtpguard.storage import Store
from smtpguard.telemetry import Event, Logger

RECEIVED_ALLOWANCE = 512
"""Octets that our ``Received:`` may add to the size that an application declared."""


@dataclass(frozen=True)
class Acceptor:
    """Begins transactions. ``clock`` gives aware times, ``new_id`` transaction ids."""

    store: Store
    smarthost: Smarthost
    hostname: str
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    logger: Logger

    def begin(
        self, origin: Origin, reverse_path: ReversePath, parameters: MailParameters, *, size: int | None
    ) -> "Transaction":
        """Begin a transaction (MAIL); the smarthost is not touched. ``size``: octets declared, if any."""
        return Transaction(self, origin, reverse_path, parameters, size=size)


class _Ended(Exception):
    """The transaction ends here with this reply."""

    def __init__(self, reply: Reply, outcome: Outcome, smarthost_reply: Reply | None = None) -> None:
        self.reply = reply
        self.outcome = outcome
        self.smarthost_reply = smarthost_reply


class Transaction:
    """One transaction. Call ``add_recipient`` for each RCPT, then ``end_of_data`` or ``abort``, once."""

    def __init__(
        self,
        acceptor: Acceptor,
        origin: Origin,
        reverse_path: ReversePath,
        parameters: MailParameters,
        *,
        size: int | None,
    ) -> None:
        self._store = acceptor.store
        self._acceptor = acceptor
        self._origin = origin
        self._policy = origin.application.policy
        self._reverse_path = reverse_path
        self._parameters = parameters
        self._relay = acceptor.smarthost.begin(
            reverse_path, parameters, size=None if size is None else size + RECEIVED_ALLOWANCE
        )
        self._accepted: list[Decision] = []
        self._kept = False
        self.id = acceptor.new_id()
        self.record = TransactionRecord(self.id, origin, reverse_path, acceptor.clock())

    @property
    def has_recipients(self) -> bool:
        """Whether a recipient was accepted."""
        return bool(self._accepted)

    @property
    def offer_count(self) -> int:
        """How many recipients were offered, refused ones included: all are kept for the record."""
        return self.record.offer_count

    async def add_recipient(self, recipient: Mailbox) -> Reply:
        """Decide about a recipient, offer it to the smarthost where it is to be relayed, and give the reply."""
        decision = await self._decide(recipient)
        reply = await self._offer(decision)
        self.record.offered(decision, reply)
        if reply.is_positive:
            self._accepted.append(decision)
        return reply

    async def end_of_data(self, wire: bytearray, *, client_gone: Callable[[], bool]) -> Reply:
        """Relay and quarantine the message (``wire``: dot-stuffed, CRLF, without the final dot), and give the reply.

        Takes ``wire`` over. Never raises but CancelledError. ``client_gone`` is asked before the point of no return.
        """
        self.record.size = len(wire)
        try:
            ended = await self._carry_out(wire, client_gone)
        except Exception as error:  # noqa: BLE001 - whatever it is, the application remains responsible
            ended = self._explain(error)
        except asyncio.CancelledError:
            self._log(Event.TRANSACTION_CUT_OFF, _Ended(R451_ABORTED, Outcome.CUT_OFF))
            raise
        finally:
            await self._relay.abort()
        self.record.client_gone = client_gone()
        await self._conclude(ended)
        return ended.reply

    async def abort(self) -> None:
        """Give up before the end of data. Never raises but CancelledError."""
        await self._relay.abort()
        if self.record.offer_count:
            await self._conclude(_Ended(R451_ABORTED, Outcome.ABORTED))

    # RCPT

    async def _decide(self, recipient: Mailbox) -> Decision:
        try:
            facts = await self._store.address_book.facts(
                [recipient.lookup_key], customer=None, now=self._acceptor.clock()
            )
        except StoreError as error:
            self.record.error = str(error)
            return Decision(recipient, Verdict.DEFER, Reason.STORE_UNAVAILABLE)
        return decide(recipient, facts[recipient.lookup_key], CustomerUnnamed.NOT_YET, self._policy)

    async def _offer(self, decision: Decision) -> Reply:
        match decision.verdict:
            case Verdict.RELAY:
                return await self._offer_to_smarthost(decision.recipient)
            case Verdict.QUARANTINE:
                return R250_RECIPIENT_OK
            case Verdict.REJECT:
                return R550_FLAGGED if decision.reason is Reason.FLAGGED else R550_NOT_VERIFIED
            case Verdict.DEFER:
                return R451_STORE_UNAVAILABLE

    async def _offer_to_smarthost(self, recipient: Mailbox) -> Reply:
        try:
            (reply,) = await self._relay.rcpt([recipient])
        except SmarthostUnavailable as error:
            self.record.error = str(error)
            return R451_SMARTHOST_UNAVAILABLE
        return reply

    # The end of data, in the order of acts

    async def _carry_out(self, wire: bytearray, client_gone: Callable[[], bool]) -> _Ended:
        fields = _checked_fields(wire)
        customer = self._prepare(wire, fields)
        decisions = await self._decide_again(customer)
        self.record.decided(decisions)
        relayed = [decision.recipient for decision in decisions if decision.verdict is Verdict.RELAY]
        kept = [decision for decision in decisions if decision.verdict is not Verdict.RELAY]
        await self._narrow(relayed)
        _stop_if(client_gone)
        if relayed:
            await self._send_body(wire)
        if kept:
            await self._keep(kept, wire, fields)
        reply = await self._pass_the_dot(relayed, client_gone)
        return _Ended(self._accepted_reply(reply), Outcome.ACCEPTED, reply)

    def _prepare(self, wire: bytearray, fields: tuple[Field, ...]) -> Customer:
        """Take the customer header out and put ``Received:`` in front: the only changes to a message."""
        customer = customer_of(fields, self._policy.customer_header)
        self.record.customer = customer if isinstance(customer, str) else None
        self.record.header(fields)
        take_out(wire, fields, self._policy.customer_header)
        wire[0:0] = received_field(
            helo=self._origin.helo,
            peer=self._origin.peer,
            hostname=self._acceptor.hostname,
            protocol=self._origin.protocol,
            transaction_id=self.id,
            now=self._acceptor.clock(),
        )
        return customer

    async def _decide_again(self, customer: Customer) -> list[Decision]:
        """Decide about all recipients in one look-up: a flag set since RCPT counts, and the customer is known now."""
        named = customer if isinstance(customer, str) else None
        keys = list({decision.recipient.lookup_key for decision in self._accepted})
        now = self._acceptor.clock()
        facts = await self._store.address_book.facts(keys, customer=named, now=now)
        if named is not None:
            # An address-wide voucher counts for one customer only, so the first message of a customer puts the pair
            # on record before it is judged: of two first messages at the same moment one at least sees the other.
            new = [key for key in keys if facts[key].rests_on_address_wide_voucher and not facts[key].bound_to_customer]
            if new:
                await self._store.address_book.bind(new, customer=named, now=now)
                facts |= await self._store.address_book.facts(new, customer=named, now=now)
        return [
            decide_after_data(before, decide(before.recipient, facts[key], customer, self._policy))
            for before in self._accepted
            for key in [before.recipient.lookup_key]
        ]

    async def _narrow(self, relayed: Sequence[Mailbox]) -> None:
        """Begin the smarthost's transaction again where fewer are to be relayed to than it was told."""
        offered = sum(decision.verdict is Verdict.RELAY for decision in self._accepted)
        if len(relayed) == offered:
            return
        if not relayed:
            await self._relay.abort()
            return
        replies = await self._relay.restart(relayed)
        refused = next((reply for reply in replies if not reply.is_positive), None)
        if refused:  # it took this recipient before: the application tries again and hears it at RCPT
            raise _Ended(R451_ABORTED, Outcome.DEFERRED, refused)

    async def _send_body(self, wire: bytearray) -> None:
        reply = await self._relay.send_body(wire)
        if reply.code != 354:
            raise _refused(reply)

    async def _keep(self, kept: Sequence[Decision], wire: bytearray, fields: tuple[Field, ...]) -> None:
        message = unstuff(wire)
        summary = summarise(fields)
        now = self._acceptor.clock()
        messages = [
            QuarantinedMessage(
                id=quarantined_id(self.id, number),
                transaction_id=self.id,
                state=QuarantineState.QUARANTINED,
                recipient=decision.recipient,
                reverse_path=self._reverse_path,
                parameters=self._parameters,
                application=self._origin.application.name,
                customer=self.record.customer,
                reason=decision.reason,
                received_at=now,
                subject=summary.subject,
                size=len(message),
            )
            for number, decision in enumerate(kept, start=1)
        ]
        content = MessageContent(message, summary.subject, summary.sender, summary.date, summary.message_id)
        self._kept = True
        try:
            await self._store.quarantine.keep(messages, content)
        except StoreUnavailable:  # lost at the commit it may have been written
            await self._take_back()
            raise

    async def _pass_the_dot(self, relayed: Sequence[Mailbox], client_gone: Callable[[], bool]) -> Reply | None:
        """Send the final dot; what is in quarantine is taken back unless the smarthost says yes."""
        try:
            return await self._final_reply(relayed, client_gone)
        except Exception:
            await self._take_back()
            raise

    async def _final_reply(self, relayed: Sequence[Mailbox], client_gone: Callable[[], bool]) -> Reply | None:
        _stop_if(client_gone)
        if not relayed:
            return None
        reply = await self._relay.finish()
        if not reply.is_positive:
            raise _refused(reply)
        return reply

    async def _take_back(self) -> None:
        if not self._kept:
            return
        try:
            await self._store.quarantine.take_back(self.id)
        except Exception as error:  # noqa: BLE001 - the application tries again: at worst the quarantine has it twice
            self._acceptor.logger.error(Event.TAKE_BACK_FAILED, transaction=self.id, error=str(error))

    # The end

    def _accepted_reply(self, reply: Reply | None) -> Reply:
        said = f"; {reply.text}" if reply else ""
        return R250_OK.with_text(f"OK id={self.id}{said}")

    def _explain(self, error: Exception) -> _Ended:
        if isinstance(error, _Ended):
            return error
        self.record.error = str(error)
        match error:
            case StoreFull():
                return _Ended(R452_STORE_FULL, Outcome.DEFERRED)
            case StoreError():
                return _Ended(R451_STORE_UNAVAILABLE, Outcome.DEFERRED)
            case SmarthostUnavailable():
                return _Ended(R451_SMARTHOST_UNAVAILABLE, Outcome.DEFERRED)
            case SmarthostLost():
                return _Ended(R451_SMARTHOST_LOST, Outcome.MAYBE_DELIVERED)
            case _:
                self._acceptor.logger.error(Event.TRANSACTION_FAILED, transaction=self.id, exc_info=error)
                return _Ended(R451_ABORTED, Outcome.FAILED)

    async def _conclude(self, ended: _Ended) -> None:
        """Write ledger and log line. The message has found its owner: a failure here changes no reply."""
        now = self._acceptor.clock()
        entries = self.record.ledger_entries(ended.outcome, ended.smarthost_reply, now)
        if entries:
            try:
                await self._store.ledger.record(entries)
            except Exception as error:  # noqa: BLE001 - whatever it is, the message is where it belongs
                self._acceptor.logger.error(Event.LEDGER_FAILED, transaction=self.id, error=str(error))
        self._log(Event.TRANSACTION_ENDED, ended)

    def _log(self, event: Event, ended: _Ended) -> None:
        fields = self.record.log_fields(ended.outcome, ended.reply, self._acceptor.clock())
        self._acceptor.logger.info(event, **fields)


def _checked_fields(wire: bytearray) -> tuple[Field, ...]:
    if has_bare_line_end(wire):
        raise _Ended(R550_BARE_LINE_END, Outcome.REFUSED)
    try:
        return header_fields(wire)
    except HeaderTooBigError:
        raise _Ended(R552_TOO_BIG.with_text("The message header is too big"), Outcome.REFUSED) from None


def _stop_if(client_gone: Callable[[], bool]) -> None:
    if client_gone():
        raise _Ended(R451_ABORTED, Outcome.CLIENT_GONE)


def _refused(reply: Reply) -> _Ended:
    """Pass a refusal on; 421 would tell the application that it is the guard that hangs up."""
    heard = R451_SMARTHOST_UNAVAILABLE if reply.code == 421 else reply
    return _Ended(heard, Outcome.DEFERRED if reply.is_transient else Outcome.REFUSED, reply)
