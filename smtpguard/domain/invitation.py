"""The invitation: the question to whoever reads a mailbox, whether it is theirs, and what answers can do.

Its link holds a token of 256 random bits, of which the store knows the digest only. What an answer does is decided by
the store, in one step; what is said here is what a reader of the page is shown.
"""

import hashlib
import re
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from smtpguard.domain.mailbox import Mailbox

TOKEN_OCTETS = 32
MAX_TRIES = 5
"""How often a challenge may be answered."""
MAX_CHALLENGE_CHARACTERS = 200
PAUSE = timedelta(days=7)
"""At most one invitation of a kind goes to an address in this time, whichever customer it is for."""
SENDING = timedelta(hours=1)
"""How long one that is on its way counts as sent; sending takes less, or the process died under way."""
CAP_PERIOD = timedelta(days=1)

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


class Language(Enum):
    """What a message can be written in."""

    DE = "de"
    FR = "fr"
    IT = "it"
    EN = "en"


class InvitationKind(Enum):
    """What a link is for."""

    CONFIRM = "confirm"
    """To say that the address is one's own, as a customer or not, or that it is not."""
    DISOWN = "disown"
    """To say that it is not, asked for by somebody who gets a stranger's mail."""


class Answer(Enum):
    """What was pressed."""

    YES = "yes"
    NO = "no"


class InvitationState(Enum):
    """What can still be done with an invitation."""

    OPEN = "open"
    ANSWERED = "answered"
    """A No still counts after a Yes, until the link expires."""
    EXPIRED = "expired"
    TRIES_USED_UP = "tries-used-up"
    """Only No is left."""


class AnswerOutcome(Enum):
    """What an answer has done."""

    CONFIRMED = "confirmed"
    DISOWNED = "disowned"
    WRONG_ANSWER = "wrong-answer"
    """To the challenge."""
    REFUSED = "refused"
    """Nothing: the link is unknown, expired or used. Nobody is told which."""


class SendingOutcome(Enum):
    """What became of an invitation that was to be made."""

    SENT = "sent"
    FAILED = "failed"
    """It could not be made or sent; where the smarthost was lost after the final dot it may have been."""
    SKIPPED = "skipped"
    """It was not to be made: the recipient is flagged, the limits are reached, or too many wait."""


class InvitationRefusal(Enum):
    """Why an invitation is not made."""

    FLAGGED = "flagged"
    SHARED = "shared"
    """The address is on record for several customers."""
    INVITED_BEFORE = "invited-before"
    """Within PAUSE."""
    CAP_REACHED = "cap-reached"
    """So many a day were made already."""
    NOT_ON_RECORD = "not-on-record"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What only the customer knows: a label, such as "customer number", and the argon2id hash of the answer."""

    label: str
    answer_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation. ``customer`` None: it is about the address alone."""

    id: str
    kind: InvitationKind
    mailbox: Mailbox
    customer: str | None
    token_digest: str = field(repr=False)
    language: Language
    created_at: datetime
    created_by: str
    expires_at: datetime
    challenge: Challenge | None = None
    tries_left: int = MAX_TRIES
    sent_at: datetime | None = None
    """None: the smarthost has not taken it."""
    answered_at: datetime | None = None
    answer: Answer | None = None
    answered_from: str | None = None
    voucher_number: int | None = None
    """Of the voucher that a Yes gave."""

    def state(self, now: datetime) -> InvitationState:
        """What can be done with it at this moment."""
        if now >= self.expires_at:
            return InvitationState.EXPIRED
        if self.answer is not None:
            return InvitationState.ANSWERED
        if self.challenge is not None and self.tries_left <= 0:
            return InvitationState.TRIES_USED_UP
        return InvitationState.OPEN

    def takes(self, answer: Answer, now: datetime) -> bool:
        """Whether an answer counts at this moment: a No after a Yes does, and needs no challenge."""
        match answer:
            case Answer.YES:
                return self.kind is InvitationKind.CONFIRM and self.state(now) is InvitationState.OPEN
            case Answer.NO:
                return self.state(now) is not InvitationState.EXPIRED and self.answer is not Answer.NO


@dataclass(frozen=True, slots=True)
class LinkView:
    """What the page of a link has to know."""

    kind: InvitationKind
    state: InvitationState
    language: Language
    organisation: str
    challenge_label: str | None
    """None: a Yes needs no answer to a challenge."""
    tries_left: int


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of an answer. ``tries_left`` is about the challenge, where the outcome is *wrong-answer*."""

    outcome: AnswerOutcome
    tries_left: int = 0


def token_text(octets: bytes) -> str:
    """Return the form of a token that stands in a link: base64url without padding."""
    if len(octets) != TOKEN_OCTETS:
        raise ValueError(f"a token has {TOKEN_OCTETS} octets")
    return urlsafe_b64encode(octets).decode("ascii").rstrip("=")


def parse_token(text: str) -> bytes | None:
    """Read a token from a link, None where it is none; a token has one form only."""
    if _TOKEN.fullmatch(text) is None:
        return None
    octets = urlsafe_b64decode(f"{text}=")
    return octets if token_text(octets) == text else None


def token_digest(octets: bytes) -> str:
    """Return what the store knows of a token."""
    return hashlib.sha256(octets).hexdigest()


def is_answer(text: str) -> bool:
    """Whether a text can be the answer to a challenge that is given with an invitation."""
    return len(text) <= MAX_CHALLENGE_CHARACTERS and bool(comparable_answer(text))


def comparable_answer(text: str) -> str:
    """Bring the answer to a challenge into the form in which it is compared: spaces and case make no difference.

    What is too long is cut; no answer that was given with an invitation is.
    """
    words = unicodedata.normalize("NFKC", text[:MAX_CHALLENGE_CHARACTERS]).casefold().split()
    return " ".join(words)
