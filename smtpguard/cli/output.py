"""What the commands print: lines, fields and JSON; tables are in ``table``.

Subjects, addresses and replies come from strangers: nothing of theirs is taken for a terminal's commands.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Cells = Sequence[Sequence[str]]
"""A row of a table: for each column one or two texts, which stand over one another where one line is too short."""


def say(text: str) -> None:
    """Print a line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(f"{one_line(text)}\n")


def complain(message: str) -> None:
    """Tell the operator in one line on standard error that something was not done."""
    note(f"smtpguard: {message}")


def one_line(text: str) -> str:
    """Return a text with every run of what cannot be printed, line ends included, as one space."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def visible(text: str) -> str:
    """Return a text with ``?`` for each character that cannot be printed."""
    return "".join(character if character.isprintable() else "?" for character in text)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object on one line of ASCII."""
    sys.stdout.write(f"{json.dumps(value)}\n")


def iso(time: datetime | None) -> str | None:
    """Write a time for programs: ISO 8601, UTC, to the microsecond."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z") if time else None


def utc(time: datetime | None) -> str:
    """Write a time for people, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if time else ""


def print_fields(fields: Sequence[tuple[str, str | None]]) -> None:
    """Print names and values, one a line, without those that have none."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value:
            say(f"{name:{width}}  {visible(value)}")
