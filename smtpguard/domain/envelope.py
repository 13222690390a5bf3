"""The envelope of a transaction (RFC 5321 2.3.1): where a message comes from and goes to, and how."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from smtpguard.domain.mailbox import Mailbox, parse_mailbox
from smtpguard.errors import MailboxSyntaxError


class NullReversePath(Enum):
    """The reverse-path of a bounce (RFC 5321 4.5.5): a case of its own, so that nobody mistakes it for "none yet"."""

    NULL = ""

    def __str__(self) -> str:
        return ""


NULL_REVERSE_PATH = NullReversePath.NULL

ReversePath = Mailbox | NullReversePath


def parse_reverse_path(text: str) -> ReversePath:
    """Parse what stands between the brackets of ``MAIL FROM:<...>``; raise MailboxSyntaxError."""
    if not text:
        return NULL_REVERSE_PATH
    mailbox = parse_mailbox(text)
    if not mailbox.domain:  # RFC 5321 4.5.1 has the bare Postmaster for RCPT only
        raise MailboxSyntaxError("the reverse-path has no domain")
    return mailbox


class Body(Enum):
    """The BODY parameter of MAIL (RFC 6152)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


@dataclass(frozen=True, slots=True)
class MailParameters:
    """What MAIL asks for beside the reverse-path, kept with a quarantined message and used at its release."""

    body: Body | None = None
    smtputf8: bool = False
    """RFC 6531: addresses and header fields may be in UTF-8."""
    ret: str | None = None
    """RFC 3461 4.3: FULL or HDRS, as it was given."""
    envid: str | None = None
    """RFC 3461 4.4: xtext, as it was given."""


@dataclass(frozen=True, slots=True)
class RcptParameters:
    """What one RCPT asks for beside the recipient (RFC 3461), as it was given; kept like MailParameters."""

    notify: str | None = None
    orcpt: str | None = None


NO_MAIL_PARAMETERS = MailParameters()
NO_RCPT_PARAMETERS = RcptParameters()


class ForwardPath(NamedTuple):
    """A recipient as it is sent on.

    ``vouched_since``: it is to be refused if the mailbox has another owner than then (RFC 7293).
    """

    recipient: Mailbox
    parameters: RcptParameters = NO_RCPT_PARAMETERS
    vouched_since: datetime | None = None
