"""Tables that people can read at 80 columns and that programs can cut.

What stands in them comes from strangers: nothing of theirs is taken for markup. Nothing is ever cut: what does not fit
is folded, the widest first, so that ids stay in one piece.
"""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from smtpguard.cli.output import Cells, visible

MANY_COLUMNS = 100_000
"""The width of what is no terminal: a row is one line there."""


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
