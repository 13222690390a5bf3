"""Import addresses from CSV: streaming, row by row; a row that is wrong is reported and does not stop the rest."""

import asyncio
import csv
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import itemgetter
from threading import Event

from smtpguard.domain.audit import Act, ActKind
from smtpguard.domain.import_row import ImportRow
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import Standing, is_customer_reference
from smtpguard.errors import ActRefused, MailboxSyntaxError
from smtpguard.storage import Store

COLUMNS = ("address", "standing", "customer", "verified_at", "source", "reason")
BYTE_ORDER_MARK = "\ufeff"
CHUNK_ROWS = 20_000
"""Rows a transaction: SQLite has one write lock, and what a running guard wants to write waits for one of these."""
_STANDINGS = {
    "": Standing.UNVERIFIED,
    **{standing.value: standing for standing in (Standing.UNVERIFIED, Standing.VERIFIED, Standing.FLAGGED)},
}


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not imported: its line (from 1), and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """How many rows were imported, and how many rejected."""

    imported: int
    rejected: int


class RowError(ValueError):
    """A row cannot be imported."""


async def import_addresses(
    lines: Iterable[str],
    *,
    store: Store,
    clock: Callable[[], datetime],
    by: str,
    name: str,
    valid_for: timedelta | None,
    on_rejected: Callable[[RejectedRow], None],
    on_imported: Callable[[int], None],
) -> ImportReport:
    """Import CSV with a header row; ``name`` is what the audit log calls the source.

    Columns: those of COLUMNS, in any order; only ``address`` is required. An empty standing is ``unverified``.
    What is verified is so for ``valid_for`` (None: for ever) from the import on, whenever it was verified.
    Importing the same again changes nothing, and an import never takes a flag away. Memory does not grow with the file.
    Raises ActRefused where the header row is wrong: nothing is imported then.
    """
    rejected = 0

    def reject(row: RejectedRow) -> None:
        nonlocal rejected
        rejected += 1
        on_rejected(row)

    rows = read_rows(lines, reject)
    imported = 0
    try:
        chunk = list(islice(rows, CHUNK_ROWS))
        while chunk:
            now = clock()
            staged = Event()
            write = store.address_book.import_rows(
                chunk,
                now=now,
                by=by,
                valid_until=now + valid_for if valid_for else None,
                on_staged=staged.set,
            )
            _, following = await asyncio.gather(_with_end(write, staged), asyncio.to_thread(_next_chunk, rows, staged))
            imported += len(chunk)
            on_imported(imported)
            chunk = following
    finally:
        why = f"{imported} rows imported, {rejected} rejected"
        await store.audit_log.audit(Act(at=clock(), actor=by, kind=ActKind.ADDRESS_IMPORT, subject=name, why=why))
    return ImportReport(imported, rejected)


async def _with_end(write: Awaitable[None], staged: Event) -> None:
    try:
        await write
    finally:
        staged.set()


def _next_chunk(rows: Iterator[ImportRow], staged: Event) -> list[ImportRow]:
    """Parse a chunk while the engine works on the one before: until that is staged, both would want the interpreter."""
    staged.wait()
    return list(islice(rows, CHUNK_ROWS))


async def import_entries(
    entries: Sequence[tuple[str, str, str, str, str, str]],
    *,
    store: Store,
    clock: Callable[[], datetime],
    by: str,
    name: str,
    valid_for: timedelta | None,
) -> tuple[ImportReport, list[RejectedRow]]:
    """Import a batch of at most CHUNK_ROWS rows, each the values of COLUMNS, and return those that were rejected.

    What is verified is so for ``valid_for`` (None: for ever) from now on, as with ``import_addresses``.
    """
    rows, rejected = await asyncio.to_thread(_checked, entries)
    now = clock()
    await store.address_book.import_rows(rows, now=now, by=by, valid_until=now + valid_for if valid_for else None)
    why = f"{len(rows)} rows imported, {len(rejected)} rejected"
    await store.audit_log.audit(Act(at=clock(), actor=by, kind=ActKind.ADDRESS_IMPORT, subject=name, why=why))
    return ImportReport(len(rows), len(rejected)), rejected


def _checked(entries: Sequence[tuple[str, str, str, str, str, str]]) -> tuple[list[ImportRow], list[RejectedRow]]:
    rows: list[ImportRow] = []
    rejected: list[RejectedRow] = []
    for number, entry in enumerate(entries, start=1):
        try:
            rows.append(import_row(*map(str.strip, entry)))
        except (MailboxSyntaxError, RowError) as error:
            rejected.append(RejectedRow(number, str(error)))
    return rows, rejected


def read_rows(lines: Iterable[str], on_rejected: Callable[[RejectedRow], None]) -> Iterator[ImportRow]:
    """Read the rows that can be imported; raise ActRefused at once where the header row is wrong."""
    numbered = enumerate(lines, start=1)
    columns = _read_columns(next(numbered, (1, ""))[1])
    return _rows(numbered, columns, on_rejected)


def _read_columns(line: str) -> list[str]:
    try:
        columns = [column.strip().lower() for column in _cells(line.removeprefix(BYTE_ORDER_MARK))]
    except RowError as error:
        raise ActRefused(f"line 1: {error}") from error
    if not columns:
        raise ActRefused("line 1: it is empty; it wants a header row with the column `address`")
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise ActRefused(f"line 1: there is no column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}")
    if len(set(columns)) != len(columns):
        raise ActRefused("line 1: a column stands there twice")
    if "address" not in columns:
        raise ActRefused("line 1: the column `address` is missing")
    return columns


def _rows(
    numbered: Iterable[tuple[int, str]], columns: list[str], on_rejected: Callable[[RejectedRow], None]
) -> Iterator[ImportRow]:
    # A column that the file does not have is found in an empty cell behind its last one.
    in_order = itemgetter(*(columns.index(column) if column in columns else len(columns) for column in COLUMNS))
    for number, line in numbered:
        try:
            cells = _cells(line)
            if len(cells) == len(columns):
                yield import_row(*in_order([*map(str.strip, cells), ""]))
            elif cells:
                raise RowError(f"{len(cells)} cells where the header row has {len(columns)}")  # noqa: TRY301 - told with the others
        except (MailboxSyntaxError, RowError) as error:
            on_rejected(RejectedRow(number, str(error)))


def _cells(line: str) -> list[str]:
    """Read one line: a row never goes over several, so that a quote too many spoils one row and not the rest."""
    row = line.rstrip("\r\n")
    if '"' not in row and "\r" not in row:  # nearly every line; the reader would say the same
        return row.split(",") if row else []
    try:
        return next(csv.reader((line,), strict=True), [])
    except csv.Error as error:
        raise RowError(f"not CSV: {error}") from error


def import_row(address: str, standing: str, customer: str, verified_at: str, source: str, reason: str) -> ImportRow:
    """Check what stands in the columns of a row. Raises MailboxSyntaxError, RowError."""
    known = _STANDINGS.get(standing) or _STANDINGS.get(standing.lower())
    if known is None:
        raise RowError(f"standing {standing!r} is not one of verified, unverified, flagged")
    if customer and not is_customer_reference(customer):
        raise RowError("the customer is not printable ASCII of at most 200 characters")
    return ImportRow(
        parse_mailbox(address),
        known,
        customer or None,
        _time(verified_at) if verified_at else None,
        _printable("source", source) if source else "",
        _printable("reason", reason) if reason else "",
    )


def _time(text: str) -> datetime:
    """Read ISO 8601; a time without a zone is UTC."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise RowError(f"verified_at {text!r} is not a time as in 2019-05-31 or 2019-05-31T12:00:00Z") from None


def _printable(column: str, text: str) -> str:
    if not text.isprintable():
        raise RowError(f"{column} holds a character that cannot be printed")
    return text
