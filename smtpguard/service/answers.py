"""The answer of whoever reads a mailbox: what a link shows, and what Yes and No do.

To look changes nothing. A Yes counts as long as nothing was answered; a No counts after a Yes as well, so that both
together, in whatever order, end as not verified. Nobody can tell from an answer, or from how long it takes, whether a
link is unknown, expired or used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from smtpguard.domain.audit import RECIPIENT, Act, ActKind
from smtpguard.domain.invitation import (
    Answer,
    Answered,
    AnswerOutcome,
    Invitation,
    LinkView,
    comparable_answer,
    parse_token,
    token_digest,
)
from smtpguard.domain.standing import Flag, Voucher
from smtpguard.service.challenges import Challenges
from smtpguard.service.metrics import Metrics
from smtpguard.storage import Store
from smtpguard.telemetry import Event, Logger

CONFIRMATION_METHOD = "confirmation"
DISOWNED = "disowned"
"""The reason of the flag that a No sets."""
MAX_EVIDENCE_CHARACTERS = 300

REFUSED = Answered(AnswerOutcome.REFUSED)


@dataclass(frozen=True)
class Answers:
    """Takes answers. ``confirmed`` is called after each Yes that counts, with the number of its voucher.

    ``valid_for`` is how long that holds, None: for ever.
    """

    store: Store
    challenges: Challenges
    organisation: str
    valid_for: timedelta | None
    confirmed: Callable[[Invitation, int], None]
    clock: Callable[[], datetime]
    logger: Logger
    metrics: Metrics

    async def look(self, token: str) -> LinkView | None:
        """Return what the page of a link shows, None where the link is unknown; changes nothing."""
        invitation = await self._find(token)
        if invitation is None:
            return None
        return LinkView(
            kind=invitation.kind,
            state=invitation.state(self.clock()),
            language=invitation.language,
            organisation=self.organisation,
            challenge_label=invitation.challenge.label if invitation.challenge else None,
            tries_left=invitation.tries_left,
        )

    async def answer(self, token: str, answer: Answer, *, challenge_answer: str, evidence: str) -> Answered:
        """Take an answer; ``evidence`` says where it comes from. Raises Busy, and StoreError: it was not taken."""
        evidence = _in_one_line(evidence)
        invitation = await self._find(token)
        # One that does not take this answer is from here on as one that nobody knows.
        taking = invitation if invitation and invitation.takes(answer, self.clock()) else None
        match answer:
            case Answer.YES:
                answered = await self._yes(taking, challenge_answer, evidence)
            case Answer.NO:
                answered = await self._no(taking, evidence)
        self.metrics.invitation(answered.outcome)
        if invitation is not None:
            self.logger.info(
                Event.INVITATION_ANSWERED,
                invitation=invitation.id,
                recipient=invitation.mailbox.text,
                customer=invitation.customer,
                answer=answer.value,
                outcome=answered.outcome.value,
            )
        return answered

    async def _find(self, token: str) -> Invitation | None:
        """Look for what cannot be a token as well: it takes as long."""
        return await self.store.invitations.find(token_digest(parse_token(token) or b""))

    async def _yes(self, invitation: Invitation | None, challenge_answer: str, evidence: str) -> Answered:
        if comparable_answer(challenge_answer):
            if wrong := await self._wrong(invitation, challenge_answer):
                return wrong
        elif invitation is not None and invitation.challenge is not None:
            return Answered(AnswerOutcome.WRONG_ANSWER, invitation.tries_left)  # nothing was tried
        return REFUSED if invitation is None else await self._confirm(invitation, evidence)

    async def _wrong(self, invitation: Invitation | None, challenge_answer: str) -> Answered | None:
        """Say how the answer to a challenge is wrong, None where it is not; the try is taken before it is looked at.

        It is looked at where there is nothing to compare it with, too, so that the time tells nothing.
        """
        challenge = invitation.challenge if invitation else None
        with self.challenges.place():
            left = None
            if invitation is not None and challenge is not None:
                left = await self.store.invitations.take_try(invitation, now=self.clock())
            compared = challenge.answer_hash if challenge and left is not None else None
            is_right = await self.challenges.fits(compared, challenge_answer)
        if challenge is None or is_right:
            return None
        return REFUSED if left is None else Answered(AnswerOutcome.WRONG_ANSWER, left)

    async def _confirm(self, invitation: Invitation, evidence: str) -> Answered:
        now = self.clock()
        how = f"invitation {invitation.id}"
        if invitation.challenge:
            how += f", with the right answer to {invitation.challenge.label!r}"
        voucher = Voucher(
            customer=invitation.customer,
            method=CONFIRMATION_METHOD,
            verified_at=now,
            by=RECIPIENT,
            evidence=f"{how}, from {evidence}",
            valid_until=now + self.valid_for if self.valid_for else None,
        )
        whom = f"for customer {invitation.customer}: " if invitation.customer else ""
        act = _act(invitation, ActKind.CONFIRM, now, f"{whom}{how}, from {evidence}")
        number = await self.store.invitations.confirm(invitation, voucher, act, answered_from=evidence)
        if number is None:
            return REFUSED
        self.confirmed(invitation, number)
        return Answered(AnswerOutcome.CONFIRMED)

    async def _no(self, invitation: Invitation | None, evidence: str) -> Answered:
        if invitation is None:
            return REFUSED
        now = self.clock()
        flag = Flag(reason=DISOWNED, since=now, by=RECIPIENT)
        act = _act(invitation, ActKind.DISOWN, now, f"invitation {invitation.id}, from {evidence}")
        is_taken = await self.store.invitations.disown(invitation, flag, act, answered_from=evidence)
        return Answered(AnswerOutcome.DISOWNED) if is_taken else REFUSED


def _act(invitation: Invitation, kind: ActKind, at: datetime, why: str) -> Act:
    return Act(at=at, actor=RECIPIENT, kind=kind, subject=invitation.mailbox.lookup_key, why=why)


def _in_one_line(evidence: str) -> str:
    """Make words from outside fit to be shown."""
    shown = (character if character.isprintable() else "?" for character in evidence[:MAX_EVIDENCE_CHARACTERS])
    return "".join(shown)
