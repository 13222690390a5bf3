"""The id of a transaction: short enough to read out on the telephone, and sorting by time."""

from datetime import datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
RANDOM_OCTETS = 6
_TIME_CHARACTERS, _RANDOM_CHARACTERS = 10, 10


def transaction_id(now: datetime, random: bytes) -> str:
    """Build the id: 10 characters of milliseconds since 1970, 10 of RANDOM_OCTETS random octets."""
    milliseconds = int(now.timestamp() * 1000)
    return _base32(milliseconds, _TIME_CHARACTERS) + _base32(int.from_bytes(random, "big"), _RANDOM_CHARACTERS)


def quarantined_id(transaction: str, number: int) -> str:
    """Build the id of the ``number``-th (from 1) quarantined message of a transaction."""
    return f"{transaction}-{number}"


def _base32(number: int, characters: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (characters - 1), -1, -5))
