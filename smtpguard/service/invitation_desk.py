"""The desk for all that has to do with invitations: it serves operators, the pages of recipients, and the guard."""

from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any

from smtpguard.domain.decision import INVITED_BY_ITSELF, RELEASED_BY_YES
from smtpguard.domain.invitation import Answer, Answered, Invitation, Language, LinkView, SendingOutcome
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.quarantined import QuarantinedMessage
from smtpguard.errors import ActRefused, SmtpguardError
from smtpguard.service.answers import Answers
from smtpguard.service.confirmed_release import ConfirmedRelease
from smtpguard.service.errands import Errands
from smtpguard.service.inviting import Inviter
from smtpguard.service.metrics import Metrics
from smtpguard.telemetry import Event, Logger

ERRANDS_AT_ONCE = 2
"""Of each kind, so that they leave the smarthost to the applications."""
MAX_WAITING = 1000

Spawn = Callable[[Coroutine[Any, Any, Any]], Any]
Errand = Callable[[], Coroutine[Any, Any, None]]


class InvitationDesk:
    """Invites, takes answers, and sends links to those who ask. To be closed before the tasks that it spawns end.

    ``invites``: whether those are invited whose mail is kept.
    """

    def __init__(
        self,
        inviter: Inviter,
        answers: Answers,
        release: ConfirmedRelease,
        spawn: Spawn,
        logger: Logger,
        metrics: Metrics,
        *,
        invites: bool,
    ) -> None:
        self._invites = invites
        self._inviter = inviter
        self._answers = answers
        self._release = release
        self._by_itself = Errands(spawn, at_once=ERRANDS_AT_ONCE, max_waiting=MAX_WAITING)
        self._asked_for = Errands(spawn, at_once=ERRANDS_AT_ONCE, max_waiting=MAX_WAITING)
        self._logger = logger
        self._metrics = metrics

    def load_templates(self) -> None:
        """Read the templates, where there can be invitations; otherwise the first one does. Raises SettingsError."""
        if not self._inviter.lacking:
            self._inviter.mail()

    async def invite(
        self,
        mailbox: Mailbox,
        *,
        customer: str | None,
        language: Language | None,
        challenge: tuple[str, str] | None,
        by: str,
    ) -> Invitation:
        """Invite whoever reads a mailbox to say whether it is theirs; see ``Inviter.invite`` for what is raised."""
        return await self._inviter.invite(mailbox, customer=customer, language=language, challenge=challenge, by=by)

    async def invite_again(self, mailbox: Mailbox, customer: str | None) -> Invitation:
        """Invite whose voucher ends soon; raises as ``invite`` does."""
        return await self._inviter.invite_again(mailbox, customer)

    async def look(self, token: str) -> LinkView | None:
        """Return what the page of a link shows, None where the link is unknown. It changes nothing."""
        return await self._answers.look(token)

    async def answer(self, token: str, answer: Answer, *, challenge_answer: str = "", evidence: str) -> Answered:
        """Take an answer; see ``Answers.answer``."""
        return await self._answers.answer(token, answer, challenge_answer=challenge_answer, evidence=evidence)

    def request_disown(self, mailbox: Mailbox, *, language: Language | None = None) -> None:
        """Send a link to disown an address there, if the address is known; whether it is, nobody hears.

        All of it is done later.
        """

        async def send() -> None:
            await self._inviter.send_disown_link(mailbox, language)

        self._begin(self._asked_for, mailbox.lookup_key, mailbox, send)

    def take_kept(self, messages: Sequence[QuarantinedMessage]) -> None:
        """Do later what messages ask for that are kept for lack of verification; never raises.

        They are released where a Yes has come meanwhile; else their recipients are invited, unless somebody has to do
        that on purpose.
        """
        for message in messages:
            if message.reason in RELEASED_BY_YES:
                key = (message.recipient.lookup_key, message.customer)
                self._begin(self._by_itself, key, message.recipient, self._serve_kept(message))

    def close(self) -> None:
        """Begin nothing more."""
        self._by_itself.close()
        self._asked_for.close()
        self._release.close()

    def _serve_kept(self, message: QuarantinedMessage) -> Errand:
        invites = self._invites and message.reason in INVITED_BY_ITSELF

        async def serve() -> None:
            if not await self._release.catch_up(message) and invites:
                await self._inviter.invite_by_itself(message.recipient, message.customer)

        return serve

    def _begin(self, errands: Errands, key: Hashable, mailbox: Mailbox, errand: Errand) -> None:
        if not errands.begin(key, lambda: self._watched(errand, mailbox)):
            self._metrics.invitation(SendingOutcome.SKIPPED)
            self._logger.warning(
                Event.INVITATION_SKIPPED, recipient=mailbox.text, why=f"{MAX_WAITING} wait, or the guard ends"
            )

    async def _watched(self, errand: Errand, mailbox: Mailbox) -> None:
        try:
            await errand()
        except ActRefused as error:
            self._logger.debug(Event.INVITATION_SKIPPED, recipient=mailbox.text, why=str(error))
        except SmtpguardError as error:
            self._logger.error(Event.INVITATION_SKIPPED, recipient=mailbox.text, why=str(error))
        except Exception as error:  # whatever it is, the mail is where it belongs
            self._logger.error(Event.INVITATION_SKIPPED, recipient=mailbox.text, why=str(error), exc_info=error)
