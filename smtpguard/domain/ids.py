"""The id of a transaction: short enough to read out on the telephone, and sorting by time."""

from datetime import UTC, datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
RANDOM_OCTETS = 6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def transaction_id(now: datetime, random: bytes) -> str:
    """Build the id: 10 characters of milliseconds since 1970, 10 of RANDOM_OCTETS random octets."""
    return _base32(_milliseconds(now)) + _base32(int.from_bytes(random, "big"))


def first_id_after(at: datetime) -> str:
    """Return what stands behind every id that was made up to this time, and before every later one."""
    return _base32(_milliseconds(at) + 1)


def quarantined_id(transaction: str, number: int) -> str:
    """Build the id of the ``number``-th (from 1) quarantined message of a transaction."""
    return f"{transaction}-{number}"


def _milliseconds(at: datetime) -> int:
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def _base32(number: int) -> str:
    """Give the lowest 50 bits as 10 characters, two at a time."""
    return (
        _PAIRS[number >> 40 & 1023]
        + _PAIRS[number >> 30 & 1023]
        + _PAIRS[number >> 20 & 1023]
        + _PAIRS[number >> 10 & 1023]
        + _PAIRS[number & 1023]
    )
