"""argon2id: hashes of passwords and of answers, which take tens of milliseconds and of MiB on purpose: in threads."""

import secrets
from base64 import b64encode

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from smtpguard.domain.application import opaque_string

# OWASP's minimum for argon2id: a password of a machine is long, and small memory matters in a guard.
MEMORY_KIB = 19_456
PASSES = 2
LANES = 1
SALT_OCTETS = 16
TAG_OCTETS = 32

_HASHER = PasswordHasher(
    memory_cost=MEMORY_KIB, time_cost=PASSES, parallelism=LANES, salt_len=SALT_OCTETS, hash_len=TAG_OCTETS
)


def hash_password(password: str) -> str:
    """Return the argon2id hash of a password, in the PHC string format. Takes a while."""
    return _HASHER.hash(opaque_string(password))


def fits(hash_: str, password: str) -> bool:
    """Whether a password, as an opaque string, is that of a hash. Takes a while; raises VerificationError."""
    try:
        return _HASHER.verify(hash_, password)
    except VerifyMismatchError:
        return False


def decoy(hash_: str) -> str:
    """Make a hash that takes as long and that no password has."""
    *parameters, salt, tag = hash_.split("$")
    return "$".join([*parameters, _random_like(salt), _random_like(tag)])


def new_decoy() -> str:
    """Make a hash that takes as long as one of ``hash_password`` and that no password has."""
    salt, tag = _base64(secrets.token_bytes(SALT_OCTETS)), _base64(secrets.token_bytes(TAG_OCTETS))
    return f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${tag}"


def _random_like(base64: str) -> str:
    return _base64(secrets.token_bytes(len(base64) * 3 // 4))


def _base64(octets: bytes) -> str:
    return b64encode(octets).decode("ascii").rstrip("=")
