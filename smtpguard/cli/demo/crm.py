"""The business system of the demo: it writes to its customers, with an ordinary SMTP client."""

import re
import smtplib  # noqa: TID251 - the CRM is somebody else's program: it speaks with a client that is not ours
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from smtpguard.cli.demo.cast import SENDER, SHOP, Letter
from smtpguard.cli.demo.mail_server import LOOPBACK

TIMEOUT_SECONDS = 30.0
_TRANSACTION = re.compile(r"\bid=(\w+)")


@dataclass(frozen=True)
class Submission:
    """What the CRM heard about a letter: the recipients that were taken, and the reply to it, or to the last RCPT."""

    letter: Letter
    taken: tuple[str, ...]
    code: int
    text: str

    @property
    def accepted(self) -> bool:
        """Whether the guard has taken the letter over."""
        return bool(self.taken) and self.code == 250

    @property
    def transaction_id(self) -> str:
        """The guard's id of the transaction, which its reply tells."""
        match = _TRANSACTION.search(self.text)
        return match[1] if match else ""


def send(letters: Sequence[Letter], port: int, now: datetime) -> list[Submission]:
    """Send letters, over one connection. Blocks; raises OSError where the guard does not speak SMTP."""
    with smtplib.SMTP(LOOPBACK, port, local_hostname="crm.shop.example", timeout=TIMEOUT_SECONDS) as client:
        client.ehlo()
        return [_submit(client, letter, now) for letter in letters]


def _submit(client: smtplib.SMTP, letter: Letter, now: datetime) -> Submission:
    client.mail(SENDER)
    replies = [(recipient, client.rcpt(recipient)) for recipient in letter.recipients]
    taken = tuple(recipient for recipient, (code, _) in replies if code == 250)
    if taken:
        code, text = client.data(_write(letter, now))
    else:
        code, text = replies[-1][1]
        client.rset()
    return Submission(letter, taken, code, text.decode("ascii", "replace"))


def _write(letter: Letter, now: datetime) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"] = f"{SHOP} <{SENDER}>"
    message["To"] = ", ".join(letter.recipients)
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = letter.message_id
    message["X-Customer-ID"] = letter.customer.reference
    message.set_content(f"Dear {letter.customer.name},\n\nyour bill comes to EUR 49.90.\n\n{SHOP}\n")
    return message.as_bytes()
