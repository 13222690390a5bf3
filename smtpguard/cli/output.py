"""What the commands print: lines, JSON, and tables that people can read at 80 columns and that programs can cut.

Subjects, addresses and replies come from strangers: nothing of theirs is taken for markup or for a terminal's
commands. Nothing is ever cut: what does not fit is folded, the widest first, so that ids stay in one piece.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

MANY_COLUMNS = 100_000
"""The width of what is no terminal: a row is one line there."""

Cells = Sequence[Sequence[str]]
"""A row: for each column one or two texts, which stand over one another where the row does not fit on one line."""


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


def print_table(heads: Cells, rows: Sequence[Cells]) -> None:
    """Print a table: a row is one line where all rows fit so, and everywhere but on a terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    flat = [_flat(heads), *map(_flat, rows)]
    if not console.is_terminal:
        console.width = MANY_COLUMNS
        console.print(_table(flat, box=None))
        return
    table = _table(flat, box=SIMPLE_HEAD)
    unbounded = console.options.update_width(MANY_COLUMNS)
    fits = Measurement.get(console, unbounded, table).maximum <= console.width
    console.print(table if fits else _table([heads, *rows], box=SIMPLE_HEAD))


def _flat(row: Cells) -> Cells:
    return [[text] for cell in row for text in cell]


def _table(rows: Sequence[Cells], *, box: Box | None) -> Table:
    table = Table(box=box, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    heads, *others = rows
    for head in heads:
        table.add_column(_cell(head), overflow="fold")
    for row in others:
        table.add_row(*map(_cell, row))
    return table


def _cell(texts: Sequence[str]) -> Text:
    first, *others = map(visible, texts)
    return Text.assemble(first, *((f"\n{other}", "dim") for other in others))
