"""The check of a history: a pure function from what was recorded to what should not have happened."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.soak.history import Attempt, Copy, Flag, History, Place


class Kind(StrEnum):
    """What can be wrong."""

    LOSS = "loss"
    """Acknowledged, and nowhere."""
    BYPASS = "bypass"
    """At the smarthost for somebody who was not verified, or was flagged."""
    CORRUPTION = "corruption"
    """Not what was sent."""
    DUPLICATE = "duplicate"
    """There, or there once more, though the application heard that it is not, or was heard once."""
    HELD = "held"
    """In quarantine for somebody who was verified and not flagged."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that should not have happened."""

    kind: Kind
    message: str
    attempt: int
    recipient: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message} attempt {self.attempt} for {self.recipient}: {self.detail}"


def violations(history: History) -> list[Violation]:
    """Everything that should not have happened."""
    attempts = {(each.message, each.number): each for each in history.attempts}
    return [*_of_copies(history, attempts), *_of_attempts(history, attempts)]


def _of_copies(history: History, attempts: dict[tuple[str, int], Attempt]) -> Iterator[Violation]:
    for copy in history.copies:
        attempt = attempts.get((copy.message, copy.attempt))
        if attempt is None or attempt.digest != copy.digest:
            yield _violation(Kind.CORRUPTION, copy, f"in {copy.place} with the digest {copy.digest}")
        if copy.place is Place.SMARTHOST:
            yield from _bypass(copy, attempt, history)
        elif attempt is not None:
            yield from _held(copy, attempt, history)


def _bypass(copy: Copy, attempt: Attempt | None, history: History) -> Iterator[Violation]:
    if copy.recipient not in history.verified:
        yield _violation(Kind.BYPASS, copy, "never verified")
    elif attempt is not None and any(_stood_before(flag, attempt) for flag in _flags(copy, history)):
        yield _violation(Kind.BYPASS, copy, "flagged before the end of data")


def _held(copy: Copy, attempt: Attempt, history: History) -> Iterator[Violation]:
    # A guard that nobody listens to any more decides when it likes.
    flagged = any(attempt.may_have_arrived or flag.begun_at < attempt.ended_at for flag in _flags(copy, history))
    if copy.recipient in history.verified and not flagged:
        yield _violation(Kind.HELD, copy, "verified and not flagged")


def _flags(copy: Copy, history: History) -> Iterable[Flag]:
    return (flag for flag in history.flags if flag.address == copy.recipient)


def _stood_before(flag: Flag, attempt: Attempt) -> bool:
    return flag.done_at is not None and attempt.dot_at is not None and flag.done_at < attempt.dot_at


def _of_attempts(history: History, attempts: dict[tuple[str, int], Attempt]) -> Iterator[Violation]:
    found = Counter((copy.message, copy.attempt, copy.recipient, copy.place) for copy in history.copies)
    for attempt in attempts.values():
        for recipient in attempt.accepted:
            sent, kept = (found.pop((attempt.message, attempt.number, recipient, place), 0) for place in Place)
            if problem := _problem(attempt, sent, kept):
                kind, detail = problem
                yield Violation(kind, attempt.message, attempt.number, recipient, f"{detail}; heard {attempt.reply}")
    for message, number, recipient, place in found:
        if (message, number) in attempts:
            yield Violation(Kind.DUPLICATE, message, number, recipient, f"in {place}, and was not accepted")


def _problem(attempt: Attempt, sent: int, kept: int) -> tuple[Kind, str] | None:
    """What is wrong with so many copies of one recipient's message at the smarthost and in quarantine."""
    there = f"{sent} at the smarthost, {kept} in quarantine"
    if attempt.is_acknowledged:
        if sent + kept == 0:
            return Kind.LOSS, "nowhere"
        return (Kind.DUPLICATE, there) if sent + kept > 1 else None
    if attempt.may_have_arrived:
        return (Kind.DUPLICATE, there) if sent + kept > 1 else None
    # A store that was lost may keep what it should have given back: at worst the quarantine has it twice.
    deferred = attempt.dot_at is not None and (attempt.reply or "").startswith("4")
    return (Kind.DUPLICATE, there) if sent or kept > deferred else None


def _violation(kind: Kind, copy: Copy, detail: str) -> Violation:
    return Violation(kind, copy.message, copy.attempt, copy.recipient, detail)
