"""Listings: page by page, as a table or as JSON, so that memory stays flat however long they are."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Annotated, Any, Generic, TypeVar

import typer

from smtpguard.cli.output import Cells, complain, note, print_json

DEFAULT_LIMIT = 50
PAGE_ROWS = 500

Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="At most so many; 0 is all.")]

Row = TypeVar("Row")
Key = TypeVar("Key", str, int)


@dataclass(frozen=True)
class Form(Generic[Row, Key]):
    """How rows of one kind are printed; ``key`` is what the next page is asked for by."""

    heads: Cells
    cells: Callable[[Row], Cells]
    fields: Callable[[Row], dict[str, Any]]
    key: Callable[[Row], Key]

    def show(self, rows: Sequence[Row], *, as_json: bool) -> None:
        """Print rows."""
        if as_json:
            for row in rows:
                print_json(self.fields(row))
        elif rows:
            from smtpguard.cli.table import print_table  # noqa: PLC0415 - heavy: `--help` need not wait for it

            print_table(self.heads, [self.cells(row) for row in rows])


async def show_listing(
    form: Form[Row, Key],
    fetch: Callable[[int, Key | None], Awaitable[Sequence[Row]]],
    *,
    limit: int,
    after: Key | None,
    as_json: bool,
) -> None:
    """Print what ``fetch(limit, after)`` gives, and on standard error how to get what is left."""
    shown = 0
    while True:
        wanted = min(PAGE_ROWS, limit - shown) if limit else PAGE_ROWS
        rows = await fetch(wanted + 1, after)  # the one too many says that there is another page
        page = rows[:wanted]
        form.show(page, as_json=as_json)
        shown += len(page)
        if len(rows) <= wanted:
            break
        after = form.key(page[-1])
        if shown == limit:
            complain(f"there is more: --after {quote(str(after))}")
            return
    if not shown:
        note("nothing to list")
