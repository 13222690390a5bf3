"""Reading addresses from CSV."""

import csv
import re
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpguard.domain.standing import Standing
from smtpguard.errors import ActRefused
from smtpguard.service import import_addresses
from smtpguard.service.import_addresses import RejectedRow, read_rows


def read(*lines: str):
    """Read lines; return the rows, and what was rejected."""
    rejected: list[RejectedRow] = []
    return list(read_rows([f"{line}\n" for line in lines], rejected.append)), rejected


def test_all_columns_in_any_order() -> None:
    (row,), rejected = read(
        "reason,source,verified_at,customer,standing,address", "moved,crm,2019-05-31,7,Verified,Anna@b.example"
    )

    assert rejected == []
    assert row.mailbox.text == "Anna@b.example"
    assert (row.standing, row.customer, row.source, row.reason) == (Standing.VERIFIED, "7", "crm", "moved")
    assert row.verified_at == datetime(2019, 5, 31, tzinfo=UTC)


def test_only_the_address_is_required() -> None:
    """Without a standing an address is on record and unverified: an import vouches for nothing by accident."""
    (row,), _ = read("address", "a@b.example")

    assert (row.standing, row.customer, row.verified_at, row.source, row.reason) == (
        Standing.UNVERIFIED,
        None,
        None,
        "",
        "",
    )


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("", "line 1: .*header row"),
        ("addres", "line 1: there is no column 'addres'"),
        ("address,email", "line 1: there is no column 'email'"),
        ("standing", "line 1: the column `address` is missing"),
        ("address,address", "line 1: a column stands there twice"),
        ('address,"standing', "line 1: not CSV"),
        ("a@b.example,verified", "line 1: there is no column"),
    ],
)
def test_wrong_header_row_imports_nothing(header, why) -> None:
    with pytest.raises(ActRefused, match=why):
        read(header, "a@b.example")


def test_empty_file() -> None:
    with pytest.raises(ActRefused, match="line 1: it is empty"):
        read_rows([], lambda _: None)


def test_byte_order_mark_and_spaces() -> None:
    rows, rejected = read("\ufeffAddress , Standing", " a@b.example , verified ")

    assert (len(rows), rejected) == (1, [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense,,", "local part is not followed by @"),
        (",verified,", "no valid local part"),
        ("a@b.example,maybe,", "standing 'maybe' is not one of"),
        ("a@b.example,unknown,", "standing 'unknown' is not one of"),
        ("a@b.example,verified", "2 cells where the header row has 3"),
        ("a@b.example,verified,,", "4 cells where the header row has 3"),
        ("a@b.example,verified,31.5.2019", "verified_at '31.5.2019' is not a time"),
        ("a@b.example,verified,0001-01-01T00:00:00+05:00", "is not a time"),
        ('"a@b.example,verified,', "not CSV"),
        ('"a"b@c.example,verified,', "not CSV"),
        ("a@b.example\udcff,verified,", "U\\+DCFF"),
        ("a\0@b.example,verified,", ""),
    ],
)
def test_bad_row_is_told_by_line_and_spoils_no_other(line, why) -> None:
    rows, rejected = read("address,standing,verified_at", "one@b.example,verified,", line, "", "two@b.example,,")

    assert [row.mailbox.text for row in rows] == ["one@b.example", "two@b.example"]
    assert [row.line for row in rejected] == [3]
    assert re.search(why, rejected[0].why)


@pytest.mark.parametrize("customer", ["a" * 201, "caf\u00e9", "a\tb", "a  b"])
def test_customer_that_no_header_could_name(customer) -> None:
    _, rejected = read("address,customer", f"a@b.example,{customer}")

    assert "customer" in rejected[0].why


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2019-05-31T12:00:00Z", datetime(2019, 5, 31, 12, tzinfo=UTC)),
        ("2019-05-31T12:00:00+02:00", datetime(2019, 5, 31, 10, tzinfo=UTC)),
        ("2019-05-31 12:00", datetime(2019, 5, 31, 12, tzinfo=UTC)),
    ],
)
def test_times(text, time) -> None:
    (row,), _ = read("address,verified_at", f"a@b.example,{text}")

    assert row.verified_at == time


@given(lines=st.lists(st.text(max_size=30).filter(lambda line: "\n" not in line), max_size=8))
def test_every_line_is_read_or_rejected_or_empty(lines) -> None:
    """Nothing raises, and nothing vanishes."""
    rows, rejected = read("address,standing", *lines)

    assert len(rows) + len(rejected) <= len(lines)
    assert len(rows) + len(rejected) >= sum(bool(line.strip()) for line in lines)


def test_source_that_cannot_be_printed() -> None:
    _, rejected = read("address,source", "a@b.example,crm\x07")

    assert [row.why for row in rejected] == ["source holds a character that cannot be printed"]


@given(st.text(alphabet="a ,;\"'\r\t\\\x00\x0b\u2028\u20ac"), st.sampled_from(["", "\n", "\r\n"]))
@example("", "\n")
@example("\r", "\n")
@example("a\rb", "\n")
@example(" ", "")
def test_cells_are_those_of_a_csv_reader(text: str, end: str) -> None:
    """A line without a quote is read without the reader, and to the same effect."""
    try:
        expected: list[str] | None = next(csv.reader((text + end,), strict=True), [])
    except csv.Error:
        expected = None

    try:
        cells: list[str] | None = import_addresses._cells(text + end)
    except import_addresses.RowError:
        cells = None

    assert expected == cells
