"""What an application hands to its mail client, and what the client tells it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SENDER = "crm@shop.example"
MESSAGE = (
    "From: Shop <crm@shop.example>\r\n"
    "To: customers@shop.example\r\n"
    "Subject: =?utf-8?q?Rechnung_f=C3=BCr_M=C3=A4rz?=\r\n"
    "Date: Mon, 1 Jul 2024 08:00:00 +0000\r\n"
    "Message-ID: <invoice-1@shop.example>\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n"
    "\r\n"
    ".a dot first\r\n"
    "..\r\n"
    ".\r\n"
    "Grüße, white space behind \t \r\n"
    "\r\n"
    f"{'long ' * 180}\r\n"
    "the end\r\n"
).encode()


@dataclass(frozen=True)
class Submission:
    """A message for a client to submit."""

    port: int
    recipients: tuple[str, ...]
    host: str = "127.0.0.1"
    sender: str = SENDER
    message: bytes = MESSAGE
    security: Literal["none", "starttls", "implicit"] = "none"
    ca_file: Path | None = None
    """PEM: whom to trust; nobody else."""
    username: str = ""
    """Empty: no login."""
    password: str = ""


@dataclass(frozen=True)
class Report:
    """What a client tells the application. ``said`` are its own words, as far as they do not differ every time."""

    accepted: bool
    said: str = ""
