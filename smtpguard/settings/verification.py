"""The section about verification: who invites, and what an answer and the time do."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from smtpguard.domain.invitation import Language
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.errors import MailboxSyntaxError
from smtpguard.settings.kinds import Count, Days, DaysOrEver
from smtpguard.settings.section import Section

MAX_ORGANISATION_CHARACTERS = 100


def _organisation(value: str) -> str:
    if not value.isprintable():  # a line end would begin another header field
        raise ValueError(f"{value!r} is not one line of printable text")
    if "=?" in value:  # which a reader of mail takes for an encoded word (RFC 2047)
        raise ValueError(f"{value!r} holds =?")
    return value.strip()


def _sender(value: str) -> str:
    if not value:
        return value
    try:
        mailbox = parse_mailbox(value)
    except MailboxSyntaxError as error:
        raise ValueError(f"{value!r}: {error}") from error
    if not mailbox.domain or not value.isascii():
        raise ValueError(f"{value!r} is not an address in ASCII with a domain")
    return value


class VerificationSettings(Section):
    """[verification]: how addresses become verified, and for how long. Times in days."""

    valid_for: DaysOrEver = 730
    """How long a voucher holds."""
    renew_days: DaysOrEver = 30
    """How long before a voucher ends its recipient is invited again; 0: never."""
    max_verification_mails_per_day: Count = 5
    """Of all applications together, to one address, on one day (UTC)."""
    organisation: Annotated[str, Field(max_length=MAX_ORGANISATION_CHARACTERS), AfterValidator(_organisation)] = ""
    """Who writes, in the words of the message."""
    sender: Annotated[str, AfterValidator(_sender)] = ""
    """From whom: also where bounces go."""
    language: Language = Language.EN
    invite_on_quarantine: bool = True
    """Whether a recipient whose mail is kept for lack of verification is invited by itself."""
    invitation_valid_for: Days = 7
    max_invitations_per_day: Count = 1000
    """Of all that are invited; links to disown are counted apart."""
    release_up_to: Days = 14
    """How old a message may be that a Yes lets go."""
    templates: Path | None = None
    """A directory whose files win over those that come with smtpguard."""

    @property
    def renews_within(self) -> timedelta | None:
        """How long before its end a voucher is renewed: in a third of its time at most. None: never."""
        days = min(self.renew_days, self.valid_for / 3) if self.valid_for else self.renew_days
        return timedelta(days=days) if days else None
