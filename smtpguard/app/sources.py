"""Where times, ids and chance come from. Here is the only clock."""

import os
import secrets
from datetime import UTC, datetime

from smtpguard.domain.ids import RANDOM_OCTETS, transaction_id
from smtpguard.domain.invitation import TOKEN_OCTETS


def clock() -> datetime:
    """Tell the time, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the only clock


def new_transaction_id(now: datetime) -> str:
    """Make an id that no other transaction has."""
    return transaction_id(now, os.urandom(RANDOM_OCTETS))


def new_link_token() -> bytes:
    """Make the octets of a link that nobody can guess."""
    return secrets.token_bytes(TOKEN_OCTETS)
