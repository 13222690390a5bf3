"""``smtpguard address import``: rows of a CSV file into the address book, with progress for people."""

import gc
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from smtpguard.cli.common import AsJson, By, at_desks, fail
from smtpguard.cli.output import print_json, say
from smtpguard.errors import ActRefused

if TYPE_CHECKING:
    from smtpguard.app import Desks
    from smtpguard.service.import_addresses import ImportReport

STDIN = "-"
MAX_LINE_OCTETS = 65_536
GARBAGE_OBJECTS = 500_000
"""How many objects there may be more than before until garbage is looked for: more than the rows that are at hand."""
SWITCH_SECONDS = 0.0005
"""How long a thread waits for the interpreter that another one has: a tenth of what is usual."""


class Lines:
    """The lines of a file as text, one at a time; an octet that is not UTF-8 spoils its own line only.

    ``octets`` is how far it was read. Raises ActRefused where a line is too long to be a row, or cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.octets = 0

    def __iter__(self) -> Iterator[str]:
        readline = self._file.readline
        for number in count(1):
            try:
                line = readline(MAX_LINE_OCTETS + 1)
            except OSError as error:
                raise ActRefused(f"line {number} cannot be read: {error.strerror}") from error
            if not line:
                return
            if len(line) > MAX_LINE_OCTETS:
                raise ActRefused(f"line {number} has more than {MAX_LINE_OCTETS} octets: this is no CSV of addresses")
            self.octets += len(line)
            yield line.decode("utf-8", "surrogateescape")


def import_(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="CSV with a header row; - is standard input.")],
    *,
    by: By,
    as_json: AsJson = False,
) -> None:
    """Import addresses from CSV. A row that is wrong is named and left out; exit code 1 then.

    Columns: address (the only one required), standing, customer, verified_at, source, reason.
    """
    from smtpguard.cli.import_progress import import_progress, report_row  # noqa: PLC0415 - heavy, for `--help`

    with _opened(file) as opened, import_progress() as progress, _made_for_two_threads():
        lines = Lines(opened)
        task = progress.add_task(file, total=_size(opened))

        async def work(desks: "Desks") -> "ImportReport":
            from smtpguard.service.import_addresses import import_addresses  # noqa: PLC0415 - heavy, for `--help`

            return await import_addresses(
                lines,
                store=desks.store,
                clock=desks.clock,
                by=by,
                name=file,
                valid_for=desks.addresses.valid_for,
                on_rejected=lambda row: report_row(progress.console, file, row),
                on_imported=lambda _: progress.update(task, completed=lines.octets),
            )

        try:
            report = at_desks(ctx, work)
        except ActRefused as error:
            fail(f"{file}: {error}")
    _conclude(report, as_json=as_json)


def _conclude(report: "ImportReport", *, as_json: bool) -> None:
    if as_json:
        print_json({"imported": report.imported, "rejected": report.rejected})
    else:
        say(f"{report.imported} rows imported, {report.rejected} rejected")
    if report.rejected:
        raise typer.Exit(1)


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == STDIN:
        yield sys.stdin.buffer
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115 - what goes wrong later is not about opening it
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}")
    with opened:
        yield opened


def _size(file: BinaryIO) -> int | None:
    """Return the octets of a regular file; of a pipe nobody knows."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _made_for_two_threads() -> Iterator[None]:
    """Set the interpreter up for rows by the million, which one thread reads and another writes.

    Garbage is looked for seldom: rows leave none, and to go through all that is loaded takes as long as to read them.
    The thread that writes gets the interpreter soon when the engine is done with a statement.
    """
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(GARBAGE_OBJECTS, *threshold[1:])
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
