"""What the mail servers of the tests refuse, all alike, and how they are to be set up."""

from dataclasses import dataclass
from pathlib import Path

REFUSED = "refused@verified.example"
"""Refused at RCPT, 550 with the words NO_SUCH_USER."""
NO_SUCH_USER = "no such user here"
REFUSED_SENDER = "refused@shop.example"
"""What this one sends is refused at the end of data, 550 or 554 with the words NOT_THIS_MESSAGE."""
NOT_THIS_MESSAGE = "not this message"


@dataclass(frozen=True)
class Wanted:
    """How a mail server is to be set up; it passes everything that it takes on to a port."""

    relay_port: int
    certificate_file: Path | None = None
    """PEM, its key with it: STARTTLS is offered."""
    login: tuple[str, str] | None = None
    """Nobody may submit without."""
