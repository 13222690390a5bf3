"""The audit log: acts of operators, of recipients and of the guard, each bound to the one before by a hash."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

FIRST_HASH = "0" * 64
"""What stands for "the act before" in the first act."""
GUARD = "smtpguard"
"""The actor of what the guard does by itself."""
RECIPIENT = "recipient"
"""The actor of what an answer of whoever reads a mailbox does."""


class ActKind(Enum):
    """What was done."""

    ADDRESS_IMPORT = "address-import"
    ADDRESS_VERIFY = "address-verify"
    ADDRESS_FLAG = "address-flag"
    ADDRESS_UNFLAG = "address-unflag"
    RELEASE_BEGIN = "release-begin"
    RELEASE_END = "release-end"
    RELEASE_FAIL = "release-fail"
    SETTLE = "settle"
    DISCARD = "discard"
    EXPIRE = "expire"
    INVITE = "invite"
    CONFIRM = "confirm"
    DISOWN = "disown"
    TOKEN_CREATE = "token-create"  # noqa: S105 - no password
    TOKEN_REVOKE = "token-revoke"  # noqa: S105 - as above


@dataclass(frozen=True, slots=True)
class Act:
    """Who did what to what, and why. ``at`` is aware."""

    at: datetime
    actor: str
    kind: ActKind
    subject: str
    """The lookup key, the id of the quarantined message, or what else was acted on."""
    why: str


@dataclass(frozen=True, slots=True)
class RecordedAct:
    """An act as it stands in the audit log, with the hash that binds it to the one before."""

    id: int
    act: Act
    previous_hash: str
    hash: str

    def follows(self, previous_hash: str) -> bool:
        """Whether it is what was recorded after the act of this hash."""
        return self.previous_hash == previous_hash and self.hash == act_hash(previous_hash, self.act)


def act_hash(previous_hash: str, act: Act) -> str:
    """Return the SHA-256 (hexadecimal) that binds an act to the one before it.

    Computed over a JSON array of the previous hash, the time in UTC to the microsecond, actor, kind, subject and why.
    """
    at = act.at.astimezone(UTC).isoformat(timespec="microseconds")
    text = json.dumps([previous_hash, at, act.actor, act.kind.value, act.subject, act.why], ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
