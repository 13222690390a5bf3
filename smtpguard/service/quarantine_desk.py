"""The operator's acts on the quarantine: release, settle, discard. Each is a row in the audit log.

A release claims its message first: *maybe-sent* is written before anything is sent, by compare-and-set, so that of two
operators one releases, and a crash in between leaves a message that an operator must settle, never one sent twice.
"""

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime

from smtpguard.domain.audit import Act, ActKind
from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.domain.envelope import ForwardPath
from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.message import DotRewriter
from smtpguard.domain.quarantined import MessageContent, QuarantinedMessage, QuarantineState
from smtpguard.domain.reply import Reply
from smtpguard.errors import ActRefused, SmarthostLost, SmarthostUnavailable, SmtpguardError
from smtpguard.relay.smarthost import Smarthost, SmarthostTransaction
from smtpguard.spool import CHUNK_OCTETS
from smtpguard.storage import Store


@dataclass(frozen=True)
class QuarantineDesk:
    """What operators do with quarantined messages."""

    store: Store
    smarthost: Smarthost
    clock: Callable[[], datetime]

    async def list(
        self, *, limit: int, after: str | None = None, states: Collection[QuarantineState]
    ) -> list[QuarantinedMessage]:
        """List messages in these states, oldest first; ``limit`` 0 is all, ``after`` the last id of the page before."""
        return await self.store.quarantine.list(limit=limit, after=after, states=states)

    async def show(self, message_id: str) -> tuple[QuarantinedMessage, MessageContent | None]:
        """Return a message, with its content while it is there. Raises NotFound."""
        message = await self.store.quarantine.get(message_id)
        content = None
        with suppress(ActRefused):
            content = await self.store.quarantine.content(message_id)
        return message, content

    async def release(self, message_id: str, *, by: str, why: str, despite_flag: bool = False) -> Reply:
        """Send a message to its one recipient, and return the smarthost's reply.

        Raises NotFound; ActRefused where it does not wait, its recipient is flagged, or the smarthost refused it;
        SmarthostUnavailable. After each of these it still waits. Raises SmarthostLost, after which it is *maybe-sent*.
        """
        message = await self.store.quarantine.get(message_id)
        await self._refuse_flagged(message, despite_flag=despite_flag)
        await self._claim(message_id, by, why)
        try:
            # Read again under the claim: a flag that was set in between counts.
            await self._refuse_flagged(message, despite_flag=despite_flag)
            reply = await self._send(message, await self.store.quarantine.content(message_id))
        except SmarthostLost as error:
            raise SmarthostLost(f"{message_id} is maybe sent, settle it: {error}") from error
        except SmtpguardError as error:
            await self._end_claim(message_id, QuarantineState.QUARANTINED, ActKind.RELEASE_FAIL, by, str(error))
            raise
        await self._end_claim(message_id, QuarantineState.RELEASED, ActKind.RELEASE_END, by, why)
        await self._write_ledger(message, reply)
        return reply

    async def settle(self, message_id: str, *, sent: bool, by: str, why: str) -> None:
        """Say what became of a *maybe-sent* message: it was sent, or it was not and waits again.

        Raises NotFound; ActRefused where there is nothing to settle.
        """
        to = QuarantineState.RELEASED if sent else QuarantineState.QUARANTINED
        act = self._act(message_id, ActKind.SETTLE, by, f"{'sent' if sent else 'not sent'}: {why}")
        await self.store.quarantine.move(message_id, expected=QuarantineState.MAYBE_SENT, to=to, act=act)

    async def discard(self, message_id: str, *, by: str, why: str) -> None:
        """Remove a waiting message and its content for good. Raises NotFound; ActRefused where it does not wait."""
        act = self._act(message_id, ActKind.DISCARD, by, why)
        await self.store.quarantine.move(
            message_id, expected=QuarantineState.QUARANTINED, to=QuarantineState.DISCARDED, act=act
        )

    async def _refuse_flagged(self, message: QuarantinedMessage, *, despite_flag: bool) -> None:
        key = message.recipient.lookup_key
        facts = await self.store.address_book.facts([key], customer=message.customer, now=self.clock())
        if facts[key].flagged and not despite_flag:
            raise ActRefused(f"{message.id}: {message.recipient} is flagged; see --despite-flag")

    async def _send(self, message: QuarantinedMessage, content: MessageContent) -> Reply:
        size = len(content.message)
        transaction = self.smarthost.begin(message.reverse_path, message.parameters, size=size)
        try:
            reply = await self._send_up_to_the_dot(transaction, message, content)
            if reply.code == 354:
                reply = await transaction.finish()
        finally:
            await transaction.abort()
        if not reply.is_positive:
            raise ActRefused(f"{message.id}: the smarthost refused it: {reply}")
        return reply

    async def _send_up_to_the_dot(
        self, transaction: SmarthostTransaction, message: QuarantinedMessage, content: MessageContent
    ) -> Reply:
        """Return 354, or a refusal. Raises SmarthostUnavailable, whatever went wrong: nothing was sent."""
        try:
            (reply,) = await transaction.rcpt([ForwardPath(message.recipient, message.rcpt_parameters)])
            if reply.is_positive:
                async with aclosing(_wire(content.message)) as chunks:
                    reply = await transaction.send_body(chunks)
        except SmtpguardError:
            raise
        except Exception as error:
            raise SmarthostUnavailable(f"{message.id} could not be sent: {type(error).__name__}: {error}") from error
        return reply

    async def _claim(self, message_id: str, by: str, why: str) -> None:
        act = self._act(message_id, ActKind.RELEASE_BEGIN, by, why)
        await self.store.quarantine.move(
            message_id, expected=QuarantineState.QUARANTINED, to=QuarantineState.MAYBE_SENT, act=act
        )

    async def _end_claim(self, message_id: str, to: QuarantineState, kind: ActKind, by: str, why: str) -> None:
        act = self._act(message_id, kind, by, why)
        await self.store.quarantine.move(message_id, expected=QuarantineState.MAYBE_SENT, to=to, act=act)

    def _act(self, message_id: str, kind: ActKind, by: str, why: str) -> Act:
        return Act(at=self.clock(), actor=by, kind=kind, subject=message_id, why=why)

    async def _write_ledger(self, message: QuarantinedMessage, reply: Reply) -> None:
        entry = LedgerEntry(
            transaction_id=message.transaction_id,
            at=self.clock(),
            application=message.application,
            decision=Decision(message.recipient, Verdict.RELAY, Reason.RELEASED),
            customer=message.customer,
            smarthost_reply=str(reply),
            message_id="",
            subject_digest="",
        )
        await self.store.ledger.record([entry])


async def _wire(message: bytes) -> AsyncGenerator[bytes, None]:
    """Give the wire form of a message piece by piece."""
    stuffing = DotRewriter(stuffs=True)
    for start in range(0, len(message), CHUNK_OCTETS):
        yield stuffing.rewrite(message[start : start + CHUNK_OCTETS])
