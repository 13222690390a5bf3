"""The operator's acts on the quarantine: release, settle, discard. Each is a row in the audit log.

A release claims its message first: *maybe-sent* is written before anything is sent, by compare-and-set, so that of two
operators one releases, and a crash in between leaves a message that an operator must settle, never one sent twice.
"""

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from smtpguard.domain.audit import Act, ActKind
from smtpguard.domain.decision import Decision, Reason, Verdict, standing_for
from smtpguard.domain.envelope import ForwardPath
from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.quarantined import MessageContent, QuarantinedMessage, QuarantineState
from smtpguard.domain.reply import Reply
from smtpguard.domain.standing import AddressFacts, CustomerUnnamed, Standing
from smtpguard.errors import ActRefused, RecipientFlagged, SmarthostLost, SmarthostRefused, SmtpguardError
from smtpguard.relay.smarthost import Smarthost
from smtpguard.service.sending import Envelope, send
from smtpguard.storage import Store

Check = Callable[[QuarantinedMessage], Awaitable[None]]
"""Raises ActRefused where a message must not be sent as things are."""


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
        return await self._release(message_id, by, why, _no_check if despite_flag else self._refuse_flagged)

    async def release_verified(self, message_id: str, *, by: str, why: str) -> Reply:
        """Release a message whose recipient has become verified for its customer; everything else as ``release``.

        Raises RecipientFlagged, too: nothing more is to be released to this recipient.
        """
        return await self._release(message_id, by, why, self._refuse_unverified)

    async def standing(self, message: QuarantinedMessage) -> tuple[Standing, Reason]:
        """Return what the address book says now of a message's recipient, for its customer. Raises StoreUnavailable."""
        return standing_for(await self._facts(message), message.customer or CustomerUnnamed.NONE)

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

    async def _release(self, message_id: str, by: str, why: str, check: Check) -> Reply:
        message = await self.store.quarantine.get(message_id)
        await check(message)
        await self._claim(message_id, by, why)
        try:
            # Read again under the claim, and right before the final dot: a flag that was set in between counts.
            await check(message)
            reply = await self._send(message, await self.store.quarantine.content(message_id), check)
        except SmarthostLost as error:
            raise SmarthostLost(f"{message_id} is maybe sent, settle it: {error}") from error
        except SmtpguardError as error:
            await self._end_claim(message_id, QuarantineState.QUARANTINED, ActKind.RELEASE_FAIL, by, str(error))
            raise
        await self._end_claim(message_id, QuarantineState.RELEASED, ActKind.RELEASE_END, by, why)
        await self._write_ledger(message, reply)
        return reply

    async def _refuse_flagged(self, message: QuarantinedMessage) -> None:
        if (await self._facts(message)).flagged:
            raise RecipientFlagged(f"{message.id}: {message.recipient} is flagged; see --despite-flag")

    async def _refuse_unverified(self, message: QuarantinedMessage) -> None:
        standing, reason = await self.standing(message)
        match standing:
            case Standing.VERIFIED:
                return
            case Standing.FLAGGED:
                raise RecipientFlagged(f"{message.id}: {message.recipient} is flagged")
            case Standing.UNKNOWN | Standing.UNVERIFIED:
                raise ActRefused(f"{message.id}: {message.recipient} is {standing.value}: {reason.value}")

    async def _facts(self, message: QuarantinedMessage) -> AddressFacts:
        key = message.recipient.lookup_key
        facts = await self.store.address_book.facts([key], customer=message.customer, now=self.clock())
        return facts[key]

    async def _send(self, message: QuarantinedMessage, content: MessageContent, check: Check) -> Reply:
        envelope = Envelope(
            message.reverse_path, message.parameters, ForwardPath(message.recipient, message.rcpt_parameters)
        )
        reply = await send(self.smarthost, envelope, content.message, before_dot=lambda: check(message))
        if not reply.is_positive:
            raise SmarthostRefused(f"{message.id}: the smarthost refused it: {reply}", reply.code)
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


async def _no_check(_: QuarantinedMessage) -> None:
    """Let it go, whatever the address book says."""
