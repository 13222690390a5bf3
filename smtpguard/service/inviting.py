"""Make an invitation, and send it: the only mail that an unverified address gets, and never a flagged one.

It is on record before it is sent, so that the limits hold whatever happens. Where nothing was sent it is withdrawn, and
counts no more; where that is not known it counts.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from smtpguard.domain.audit import GUARD, Act, ActKind
from smtpguard.domain.invitation import (
    MAX_CHALLENGE_CHARACTERS,
    Challenge,
    Invitation,
    InvitationKind,
    InvitationRefusal,
    Language,
    SendingOutcome,
    is_answer,
    token_digest,
    token_text,
)
from smtpguard.domain.mailbox import Mailbox
from smtpguard.errors import (
    ActRefused,
    InvitationRefused,
    RecipientFlagged,
    SettingsError,
    SmarthostLost,
    SmarthostRefused,
    SmtpguardError,
)
from smtpguard.relay.smarthost import Smarthost
from smtpguard.service.challenges import Challenges
from smtpguard.service.metrics import Metrics
from smtpguard.service.sending import send
from smtpguard.settings import VerificationSettings
from smtpguard.storage import Store
from smtpguard.storage.invitations import InvitationLimits
from smtpguard.telemetry import Event, Logger

if TYPE_CHECKING:
    from smtpguard.service.invitation_mail import InvitationMail, Post

VISITOR = "visitor"
"""The actor where somebody asks for a link on a page."""
_PATHS = {InvitationKind.CONFIRM: "c", InvitationKind.DISOWN: "d"}


@dataclass(frozen=True)
class Inviter:
    """Makes and sends invitations.

    ``mail`` gives what writes them, and is asked for the first one only; ``lacking`` are the keys without which there
    can be none. ``new_id`` gives the transaction ids of a time, ``new_token`` random octets.
    """

    store: Store
    smarthost: Smarthost
    challenges: Challenges
    settings: VerificationSettings
    link_base: str
    lacking: tuple[str, ...]
    mail: Callable[[], "InvitationMail"]
    clock: Callable[[], datetime]
    new_id: Callable[[datetime], str]
    new_token: Callable[[], bytes]
    logger: Logger
    metrics: Metrics

    async def invite(
        self,
        mailbox: Mailbox,
        *,
        customer: str | None,
        language: Language | None,
        challenge: tuple[str, str] | None,
        by: str,
    ) -> Invitation:
        """Invite on purpose. ``challenge`` is a label, and the answer that a Yes needs.

        Raises SettingsError where there can be no invitations; ActRefused, which may be InvitationRefused,
        RecipientFlagged or SmarthostRefused, SmarthostUnavailable, Busy: nothing was sent; SmarthostLost: it may have
        been.
        """
        hashed = await self._hashed(challenge) if challenge else None
        limits = self._limits(by_itself=False)
        return await self._counted(
            self._make_and_send(
                InvitationKind.CONFIRM, mailbox, customer, limits, language=language, challenge=hashed, by=by
            )
        )

    async def invite_by_itself(self, mailbox: Mailbox, customer: str | None) -> Invitation:
        """Invite because mail was kept; raises as ``invite`` does."""
        limits = self._limits(by_itself=True)
        return await self._counted(
            self._make_and_send(InvitationKind.CONFIRM, mailbox, customer, limits, language=None, by=GUARD)
        )

    async def invite_again(self, mailbox: Mailbox, customer: str | None) -> Invitation:
        """Invite as a voucher ends soon; half of what a day allows is left to others. Raises as ``invite`` does."""
        limits = InvitationLimits(max(1, self.settings.max_invitations_per_day // 2), by_itself=True)
        return await self._counted(
            self._make_and_send(InvitationKind.CONFIRM, mailbox, customer, limits, language=None, by=GUARD)
        )

    async def send_disown_link(self, mailbox: Mailbox, language: Language | None) -> Invitation:
        """Send a link by which an address can be disowned, if it is known at all; raises as ``invite`` does."""
        limits = self._limits(by_itself=True)
        return await self._counted(
            self._make_and_send(InvitationKind.DISOWN, mailbox, None, limits, language=language, by=VISITOR)
        )

    async def _counted(self, sending: Awaitable[Invitation]) -> Invitation:
        try:
            invitation = await sending
        except SmtpguardError as error:
            is_skipped = isinstance(error, ActRefused) and not isinstance(error, SmarthostRefused)
            self.metrics.invitation(SendingOutcome.SKIPPED if is_skipped else SendingOutcome.FAILED)
            raise
        self.metrics.invitation(SendingOutcome.SENT)
        return invitation

    def _limits(self, *, by_itself: bool) -> InvitationLimits:
        return InvitationLimits(self.settings.max_invitations_per_day, by_itself=by_itself)

    async def _hashed(self, challenge: tuple[str, str]) -> Challenge:
        label, answer = challenge
        if not label.isprintable() or not label.strip() or len(label) > MAX_CHALLENGE_CHARACTERS:
            raise ActRefused(f"the label of a challenge is one line of 1 to {MAX_CHALLENGE_CHARACTERS} characters")
        if not is_answer(answer):
            raise ActRefused(f"the answer to a challenge has 1 to {MAX_CHALLENGE_CHARACTERS} characters")
        with self.challenges.place():
            return Challenge(label.strip(), await self.challenges.hashed(answer))

    async def _make_and_send(
        self,
        kind: InvitationKind,
        mailbox: Mailbox,
        customer: str | None,
        limits: InvitationLimits,
        *,
        language: Language | None,
        by: str,
        challenge: Challenge | None = None,
    ) -> Invitation:
        if self.lacking:
            raise SettingsError(f"there can be no invitations: not set: {', '.join(self.lacking)}")
        if not mailbox.can_stand_in_a_header:
            raise ActRefused(f"{mailbox}: no message can be addressed to it")
        token, now = self.new_token(), self.clock()
        invitation = Invitation(
            id=self.new_id(now),
            kind=kind,
            mailbox=mailbox,
            customer=customer,
            token_digest=token_digest(token),
            language=language or self.settings.language,
            created_at=now,
            created_by=by,
            expires_at=now + timedelta(days=self.settings.invitation_valid_for),
            challenge=challenge,
        )
        link = f"{self.link_base}/{_PATHS[kind]}/{token_text(token)}"
        # Asked first, so that what is refused, which is most of what nobody asked for, writes nothing.
        self._refuse(await self.store.invitations.refusal(invitation, limits), invitation)
        post = self.mail().write(invitation, link, now=now)
        self._refuse(await self.store.invitations.create(invitation, _act(invitation), limits), invitation)
        await self._send(invitation, post)
        return invitation

    def _refuse(self, refusal: InvitationRefusal | None, invitation: Invitation) -> None:
        if refusal is None:
            return
        if refusal is InvitationRefusal.CAP_REACHED:  # of all refusals the one that an operator should know of
            self.logger.warning(Event.INVITATION_SKIPPED, recipient=invitation.mailbox.text, why=refusal.value)
        why = self._in_words(refusal, invitation)
        if refusal is InvitationRefusal.FLAGGED:
            raise RecipientFlagged(why)
        raise InvitationRefused(why, refusal.value)

    def _in_words(self, refusal: InvitationRefusal, invitation: Invitation) -> str:
        match refusal:
            case InvitationRefusal.FLAGGED:
                return f"{invitation.mailbox} is flagged, and is sent nothing"
            case InvitationRefusal.SHARED:
                return f"{invitation.mailbox} is on record for several customers: say which one is invited"
            case InvitationRefusal.INVITED_BEFORE:
                return f"{invitation.mailbox} was invited within the last 7 days"
            case InvitationRefusal.CAP_REACHED:
                return f"verification.max_invitations_per_day, {self.settings.max_invitations_per_day}, is reached"
            case InvitationRefusal.NOT_ON_RECORD:
                return f"{invitation.mailbox} is not on record"

    async def _send(self, invitation: Invitation, post: "Post") -> None:
        try:
            reply = await send(
                self.smarthost, post.envelope, post.message, before_dot=lambda: self._refuse_flagged(invitation)
            )
            if not reply.is_positive:
                raise SmarthostRefused(f"the smarthost refused the invitation: {reply}", reply.code)
        except SmarthostLost as error:
            self.logger.error(Event.INVITATION_FAILED, error=f"{error}: maybe sent", **_fields(invitation))
            await self.store.invitations.mark_sent(invitation, now=self.clock())
            raise
        except SmtpguardError as error:
            self.logger.error(Event.INVITATION_FAILED, error=str(error), **_fields(invitation))
            await self.store.invitations.withdraw(invitation, now=self.clock())
            raise
        self.logger.info(Event.INVITATION_SENT, **_fields(invitation))
        await self.store.invitations.mark_sent(invitation, now=self.clock())

    async def _refuse_flagged(self, invitation: Invitation) -> None:
        key = invitation.mailbox.lookup_key
        facts = await self.store.address_book.facts([key], customer=None, now=self.clock())
        if facts[key].flagged:
            raise RecipientFlagged(f"{invitation.mailbox} is flagged, and is sent nothing")


def _act(invitation: Invitation) -> Act:
    about = "link to disown" if invitation.kind is InvitationKind.DISOWN else _whom(invitation.customer)
    return Act(
        at=invitation.created_at,
        actor=invitation.created_by,
        kind=ActKind.INVITE,
        subject=invitation.mailbox.lookup_key,
        why=f"invitation {invitation.id}, {about}",
    )


def _whom(customer: str | None) -> str:
    return f"for customer {customer}" if customer else "address-wide"


def _fields(invitation: Invitation) -> dict[str, str | None]:
    return {
        "invitation": invitation.id,
        "kind": invitation.kind.value,
        "recipient": invitation.mailbox.text,
        "customer": invitation.customer,
        "by": invitation.created_by,
    }
