"""The lines of an import: one at a time, counted, and bounded."""

import io

import pytest

from smtpguard.cli.address_import import MAX_LINE_OCTETS, Lines
from smtpguard.errors import ActRefused


def test_lines_are_counted_in_octets():
    lines = Lines(io.BytesIO("address\nmüller@x.example\r\nlast".encode()))

    assert list(lines) == ["address\n", "müller@x.example\r\n", "last"]
    assert lines.octets == 8 + 19 + 4


def test_bad_octet_spoils_its_own_line_only():
    lines = list(Lines(io.BytesIO(b"a\nm\xfcller\nb\n")))

    assert lines == ["a\n", "m\udcfcller\n", "b\n"]


def test_line_of_the_longest_length():
    line = b"x" * (MAX_LINE_OCTETS - 1) + b"\n"

    assert len(list(Lines(io.BytesIO(line * 2)))) == 2


def test_line_without_end_is_no_csv():
    lines = iter(Lines(io.BytesIO(b"address\n" + b"x" * (MAX_LINE_OCTETS + 1))))

    next(lines)
    with pytest.raises(ActRefused, match="line 2 has more than 65536 octets"):
        next(lines)


def test_read_error_names_the_line():
    class Broken(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(ActRefused, match="line 1 cannot be read: Input/output error"):
        next(iter(Lines(Broken())))
