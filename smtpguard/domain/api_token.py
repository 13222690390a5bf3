"""The token by which another system uses the API: what it may do, and how it is made and known again.

A token is random enough that nobody guesses it, so that a plain digest is what is kept of it.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum

TOKEN_OCTETS = 32
_TOKEN = re.compile(r"sg_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Scope(Enum):
    """What a token lets do."""

    ADDRESSES_READ = "addresses:read"
    ADDRESSES_WRITE = "addresses:write"
    INVITATIONS_WRITE = "invitations:write"
    QUARANTINE_READ = "quarantine:read"
    QUARANTINE_DECIDE = "quarantine:decide"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token as it is on record, without what it is known by."""

    id: int
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    created_by: str
    last_used: date | None
    """To the day; None: never."""
    revoked_at: datetime | None


def new_token(random: bytes) -> str:
    """Build a token of TOKEN_OCTETS random octets."""
    return f"sg_{urlsafe_b64encode(random).decode('ascii').rstrip('=')}"


def token_digest(token: str) -> str | None:
    """Return what is kept of a token: its SHA-256, hexadecimal; None where no token looks like this."""
    return hashlib.sha256(token.encode("ascii")).hexdigest() if _TOKEN.fullmatch(token) else None


def is_token_name(text: str) -> bool:
    """Whether a token can be named so: it goes into logs and into the audit log."""
    return _NAME.fullmatch(text) is not None
