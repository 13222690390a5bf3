"""The history of a campaign: what the applications sent and heard, what operators did, and what was found afterwards.

Moments are numbers that only grow; all of them are taken in one process, so that "before" means what it says.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to send a message. ``accepted`` are the recipients that were answered 2yz at RCPT."""

    message: str
    number: int
    digest: str
    """Of what is to arrive: the message without the customer header."""
    accepted: tuple[str, ...]
    dot_at: int | None
    """The moment before the end of data went out; None: it never did."""
    reply: str | None
    """To the end of data; None: the application did not hear it."""
    ended_at: int

    @property
    def is_acknowledged(self) -> bool:
        """Whether the application heard that the message is where it belongs."""
        return (self.reply or "").startswith("2")

    @property
    def may_have_arrived(self) -> bool:
        """Whether the application cannot know: it heard nothing, that nobody knows (451 4.4.2), or that the guard leaves."""
        unknown = self.reply is None or self.reply.startswith(("421 ", "451 4.4.2 "))
        return self.dot_at is not None and unknown


@dataclass(frozen=True, slots=True)
class Flag:
    """An operator's flag on an address; ``done_at`` None: the operator did not hear that it was set."""

    address: str
    begun_at: int
    done_at: int | None


class Place(StrEnum):
    """Where a message can be."""

    SMARTHOST = "smarthost"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Copy:
    """One recipient's message that was found. The message says itself which attempt it is from."""

    place: Place
    recipient: str
    message: str
    attempt: int
    digest: str


@dataclass
class History:
    """All of it."""

    verified: frozenset[str]
    """Who was verified from the beginning; nobody else ever was."""
    attempts: list[Attempt] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)

    def save(self, file: Path) -> None:
        """Write it as JSON, one record a line."""
        with file.open("w", encoding="utf-8") as lines:
            for kind in ("attempts", "flags", "copies"):
                for record in getattr(self, kind):
                    lines.write(json.dumps({"kind": kind, **asdict(record)}) + "\n")


def read_copies(journal: Path) -> Iterable[Copy]:
    """Read the journal of the sink; a line that was cut off by a kill was never acknowledged."""
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        for recipient in record["recipients"]:
            yield Copy(Place.SMARTHOST, recipient, record["message"], record["attempt"], record["digest"])
