"""Accept a transaction: from MAIL to the reply to the end of data.

The promise is kept here. After a positive reply to the end of data each accepted recipient's message is either
acknowledged by the smarthost or durably in quarantine. Whatever goes wrong before becomes a reply that leaves the
application responsible; nothing goes wrong into a relay.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from smtpguard.domain.application import Origin
from smtpguard.domain.capabilities import Capabilities
from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.domain.envelope import ForwardPath, MailParameters, RcptParameters, ReversePath
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.message import (
    PURPOSE_HEADER,
    Header,
    HeaderSummary,
    customer_of,
    is_verification_mark,
    received_field,
    summarise,
    unstuffed,
)
from smtpguard.domain.quarantined import QuarantinedMessage
from smtpguard.domain.reply import (
    R250_OK,
    R451_ABORTED,
    R451_SMARTHOST_LOST,
    R451_SMARTHOST_UNAVAILABLE,
    R451_STORE_UNAVAILABLE,
    R452_STORE_FULL,
    Reply,
)
from smtpguard.domain.standing import Customer
from smtpguard.errors import (
    SmarthostLost,
    SmarthostUnavailable,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUntouched,
)
from smtpguard.relay.smarthost import Smarthost
from smtpguard.service.decisions import decide_again, decide_at_rcpt, reply_to_rcpt
from smtpguard.service.header import change_header, checked_header
from smtpguard.service.metrics import Metrics
from smtpguard.service.owners import Owners
from smtpguard.service.recipients import Accepted, kept_messages, offer_anew, settle_rejected
from smtpguard.service.record import (
    ACCEPTED,
    NOTHING_SENT,
    Ended,
    Outcome,
    TransactionRecord,
    outcome_of,
    refused_by_smarthost,
)
from smtpguard.service.verification_mail import VerificationMail
from smtpguard.spool import Spool, WireMessage
from smtpguard.storage import Store
from smtpguard.telemetry import Event, Logger

RECEIVED_ALLOWANCE = 1024
"""Octets that our ``Received:`` may add to the size that an application declared."""


@dataclass(frozen=True)
class Acceptor:
    """Begins transactions. ``clock`` gives aware times, ``new_id`` the transaction ids of a time."""

    store: Store
    smarthost: Smarthost
    spool: Spool
    hostname: str
    clock: Callable[[], datetime]
    new_id: Callable[[datetime], str]
    logger: Logger
    max_verification_mails: int
    """To one address, on one day."""
    owners: Owners
    on_kept: Callable[[Sequence[QuarantinedMessage]], None] | None = None
    """Told of what is in quarantine, once the transaction has ended well; what it does is no part of that."""
    metrics: Metrics | None = None
    """None: nobody asks for them."""

    def begin(
        self, origin: Origin, reverse_path: ReversePath, parameters: MailParameters, *, size: int | None
    ) -> "Transaction":
        """Begin a transaction (MAIL); the smarthost is not touched. ``size``: octets declared, if any."""
        return Transaction(self, origin, reverse_path, parameters, size=size)

    def offers(self) -> Coroutine[Any, Any, Capabilities | None]:
        """Return what the smarthost offers, None where nobody knows yet. Never raises."""
        return self.smarthost.offers()


class Transaction:
    """One transaction. Call ``add_recipient`` for each RCPT, then ``end_of_data``, ``refuse`` or ``abort``, once."""

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
        self._accepted: list[Accepted] = []
        self._owners = acceptor.owners
        self._kept: list[QuarantinedMessage] = []
        self._verification: VerificationMail | None = None
        began_at = acceptor.clock()
        self.id = acceptor.new_id(began_at)
        self.record = TransactionRecord(self.id, origin, reverse_path, began_at)

    @property
    def has_recipients(self) -> bool:
        """Whether a recipient was accepted."""
        return bool(self._accepted)

    @property
    def offer_count(self) -> int:
        """How many recipients were offered, refused ones included: all are kept for the record."""
        return self.record.offer_count

    async def add_recipient(self, recipient: Mailbox, parameters: RcptParameters) -> Reply:
        """Decide about a recipient, offer it to the smarthost where it is to be relayed, and give the reply."""
        try:
            decision, since = await decide_at_rcpt(self._store, recipient, self._policy, now=self._acceptor.clock())
        except StoreError as error:
            self.record.error = str(error)
            decision, since = Decision(recipient, Verdict.DEFER, Reason.STORE_UNAVAILABLE), None
        path = ForwardPath(recipient, parameters, since)
        reply = reply_to_rcpt(decision, self._origin.application)
        if reply is None:
            try:
                (reply,) = await self._relay.rcpt([path])
            except SmarthostUnavailable as error:
                self.record.error = str(error)
                reply = R451_SMARTHOST_UNAVAILABLE
        if reply.is_positive:
            self._accepted.append(Accepted(decision, path))
            self.record.accepted(decision)
        else:
            self.record.refused(decision, reply)
            await self._owners.heed(decision, reply)
        return reply

    async def end_of_data(self, message: WireMessage, *, client_gone: Callable[[], bool]) -> Reply:
        """Relay and quarantine the message, and give the reply.

        Takes ``message`` over and closes it. Never raises but CancelledError. ``client_gone`` is asked before the point
        of no return.
        """
        self.record.size = len(message)
        try:
            ended = await self._carry_out(message, client_gone)
        except Exception as error:  # noqa: BLE001 - whatever it is, the application remains responsible
            ended = self._explain(error)
        except asyncio.CancelledError:
            self._log_cut_off()
            raise
        finally:
            message.close()
            await self._relay.abort()
        self.record.client_gone = client_gone()
        await self._conclude(ended)
        self._tell_of_kept(ended)
        return ended.reply

    async def refuse(self, reply: Reply, *, why: str) -> None:
        """Give up because the message itself was refused with this reply. Never raises but CancelledError."""
        await self._relay.abort()
        self.record.error = why
        await self._conclude(Ended(reply, outcome_of(reply)))

    async def abort(self) -> None:
        """Give up before the end of data. Never raises but CancelledError."""
        await self._relay.abort()
        if self.record.offer_count:
            await self._conclude(Ended(R451_ABORTED, Outcome.ABORTED))

    # The end of data, in the order of acts

    async def _carry_out(self, message: WireMessage, client_gone: Callable[[], bool]) -> Ended:
        header = checked_header(message)
        now = self._acceptor.clock()
        customer = self._prepare(message, header, now)
        decided = await self._decide_again(customer, now)
        if decided is not self._accepted:
            decided = await self._offer_anew(decided)
        if self._origin.application.may_verify:
            decided = settle_rejected(decided, self.record)
        if message.is_cut or not all(each.is_relayed for each in decided):
            reply = await self._act_in_steps(decided, message, header, client_gone)
        else:
            reply = await self._deliver(message, client_gone)
        return Ended(self._accepted_reply(reply), ACCEPTED, reply)

    def _prepare(self, message: WireMessage, header: Header, now: datetime) -> Customer:
        """Note what the header says, and change it."""
        customer = customer_of(header, self._policy.customer_header)
        self.record.customer = customer if isinstance(customer, str) else None
        self.record.header(header)
        purposes = header.values(PURPOSE_HEADER)
        if purposes:
            self._heed(purposes, now)
        received = received_field(self._origin, hostname=self._acceptor.hostname, transaction_id=self.id, now=now)
        change_header(message, header, customer_header=self._policy.customer_header, received=received)
        return customer

    def _heed(self, purposes: Sequence[bytes], now: datetime) -> None:
        """Take the message for verification mail, if it is marked so by an application that may."""
        is_heeded = self._origin.application.may_verify and is_verification_mark(purposes)
        self.record.purpose = "verification" if is_heeded else "ignored"
        if is_heeded:
            max_per_day = self._acceptor.max_verification_mails
            self._verification = VerificationMail(self._store, max_per_day=max_per_day, now=now)

    async def _decide_again(self, customer: Customer, now: datetime) -> list[Accepted]:
        before = [each.decision for each in self._accepted]
        decisions = await decide_again(self._store, before, self._policy, customer=customer, now=now)
        if self._verification is not None:
            decisions = await self._verification.let_through(before, decisions)
        if decisions == before:
            return self._accepted
        self.record.decided(decisions)
        return [each._replace(decision=decision) for each, decision in zip(self._accepted, decisions, strict=True)]

    async def _offer_anew(self, decided: list[Accepted]) -> list[Accepted]:
        """Have the smarthost know of exactly those who are relayed to; whom it refuses only now is kept."""
        refused = await offer_anew(self._relay, self._accepted, decided)
        if not refused:
            return decided
        for number, reply in refused.items():
            await self._owners.heed(decided[number].decision, reply)
        if len(refused) == len(decided):  # nobody is left who could have got a 250 for something
            raise refused_by_smarthost(next((reply for reply in refused.values() if reply.is_transient), refused[0]))
        if self._verification is not None:
            await self._verification.give_back([decided[number].path.recipient.lookup_key for number in refused])
        rest = [self._accepted[number] if number in refused else each for number, each in enumerate(decided)]
        if not any(each.is_relayed for each in rest):
            await self._relay.abort()
        self.record.error = "; ".join(f"{decided[number].path.recipient}: {reply}" for number, reply in refused.items())
        self.record.decided([each.decision for each in rest])
        return rest

    async def _deliver(self, message: WireMessage, client_gone: Callable[[], bool]) -> Reply:
        """Relay to everybody a message that is whole in memory, which is the usual case: body and dot go together."""
        _stop_if(client_gone)
        reply = await self._relay.deliver(message.head, before_dot=lambda: _stop_if(client_gone))
        if not reply.is_positive:
            raise refused_by_smarthost(reply)
        return reply

    async def _act_in_steps(
        self, decided: Sequence[Accepted], message: WireMessage, header: Header, client_gone: Callable[[], bool]
    ) -> Reply | None:
        """Relay and quarantine: what is kept is committed between the body and the dot."""
        relayed = [each.path for each in decided if each.is_relayed]
        kept = [each for each in decided if not each.is_relayed]
        _stop_if(client_gone)
        if relayed:
            await self._send_body(message)
        if kept:
            await self._keep(kept, message, summarise(header))
        return await self._pass_the_dot(relayed, client_gone)

    async def _send_body(self, message: WireMessage) -> None:
        async with aclosing(message.chunks()) as chunks:
            reply = await self._relay.send_body(chunks)
        if reply.code != 354:
            raise refused_by_smarthost(reply)

    async def _keep(self, kept: Sequence[Accepted], message: WireMessage, summary: HeaderSummary) -> None:
        messages = kept_messages(
            kept, self.record, self._parameters, subject=summary.subject, size=message.size, now=self._acceptor.clock()
        )
        self._kept = messages
        try:
            await self._store.quarantine.keep(messages, summary, unstuffed(message.pieces()))
        except StoreUntouched:
            raise
        except StoreUnavailable:  # lost at the commit it may have been written
            await self._take_back()
            raise

    async def _pass_the_dot(self, relayed: Sequence[ForwardPath], client_gone: Callable[[], bool]) -> Reply | None:
        """Send the final dot; what is in quarantine is taken back unless the smarthost says yes."""
        try:
            return await self._final_reply(relayed, client_gone)
        except Exception:
            await self._take_back()
            raise

    async def _final_reply(self, relayed: Sequence[ForwardPath], client_gone: Callable[[], bool]) -> Reply | None:
        _stop_if(client_gone)
        if not relayed:
            return None
        reply = await self._relay.finish()
        if not reply.is_positive:
            raise refused_by_smarthost(reply)
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

    def _explain(self, error: Exception) -> Ended:
        if isinstance(error, Ended):
            return error
        self.record.error = str(error)
        match error:
            case StoreFull():
                return Ended(R452_STORE_FULL, Outcome.DEFERRED)
            case StoreError():
                return Ended(R451_STORE_UNAVAILABLE, Outcome.DEFERRED)
            case SmarthostUnavailable():
                return Ended(R451_SMARTHOST_UNAVAILABLE, Outcome.DEFERRED)
            case SmarthostLost():
                return Ended(R451_SMARTHOST_LOST, Outcome.MAYBE_DELIVERED)
            case _:
                self._acceptor.logger.error(Event.TRANSACTION_FAILED, transaction=self.id, exc_info=error)
                return Ended(R451_ABORTED, Outcome.FAILED)

    async def _conclude(self, ended: Ended) -> None:
        """Write the ledger, and the log line after the reply.

        The message has found its owner: a failure here changes no reply.
        """
        now = self._acceptor.clock()
        entries = self.record.ledger_entries(ended.outcome, ended.smarthost_reply, now)
        try:
            if ended.outcome is not ACCEPTED:
                await self._heed_failure(ended)
            if entries:
                await self._store.ledger.record(entries)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message is where it belongs
            self._acceptor.logger.error(Event.LEDGER_FAILED, transaction=self.id, error=str(error))
        except asyncio.CancelledError:
            self._log_cut_off()
            raise
        asyncio.get_running_loop().call_soon(self._log, ended, now)

    async def _heed_failure(self, ended: Ended) -> None:
        if ended.outcome is Outcome.REFUSED and ended.smarthost_reply is not None:
            await self._owners.heed_of_all(self.record.relayed, ended.smarthost_reply)
        if self._verification is not None and ended.outcome in NOTHING_SENT:
            await self._verification.give_back()

    def _tell_of_kept(self, ended: Ended) -> None:
        """Tell after the reply; from the event loop, where a failure is nobody's here."""
        if self._kept and ended.outcome is ACCEPTED and self._acceptor.on_kept:
            asyncio.get_running_loop().call_soon(self._acceptor.on_kept, self._kept)

    def _log_cut_off(self) -> None:
        self._log(Ended(R451_ABORTED, Outcome.CUT_OFF), self._acceptor.clock(), Event.TRANSACTION_CUT_OFF)

    def _log(self, ended: Ended, now: datetime, event: Event = Event.TRANSACTION_ENDED) -> None:
        self._acceptor.logger.info(event, **self.record.log_fields(ended.outcome, ended.reply, now))
        if self._acceptor.metrics is not None:
            self._acceptor.metrics.transaction_ended(self.record, ended, now)


def _stop_if(client_gone: Callable[[], bool]) -> None:
    if client_gone():
        raise Ended(R451_ABORTED, Outcome.CLIENT_GONE)
