"""What is printed: nothing of a stranger's is taken for markup or a terminal's command, and ids stay whole."""

import io
import json
import re
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from smtpguard.cli.output import complain, iso, one_line, print_fields, print_json, utc, visible
from smtpguard.cli.table import print_table

ESCAPES = "\x1b[31mred\x1b[0m\x07\r\x9b2J\u202etxt\u2028"
ID = "01K2ABCDEFGHJKMNPQRS-1"
HEADS = (("ID", "Received"), ("Recipient", "Subject"), ("Reason", "Customer"))


def row(recipient: str = "kunde@webmail.test", subject: str = "hello") -> tuple[tuple[str, ...], ...]:
    return (ID, "2019-05-31 12:00:00"), (recipient, subject), ("not-verified-for-customer", "C-1018")


def shown(screen: io.StringIO) -> list[str]:
    """The lines on a terminal, without bold and dim."""
    return re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()


@pytest.fixture
def terminal(monkeypatch):
    """Standard output is a terminal of so many columns."""

    def make(columns: int) -> io.StringIO:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        stream = Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return make


def test_error_is_one_line_whatever_it_holds(capsys):
    complain(f"no\nsuch\r\n  thing {ESCAPES}")

    err = capsys.readouterr().err
    assert err == "smtpguard: no such thing [31mred [0m 2J txt\n"


@pytest.mark.parametrize("text", [ESCAPES, "a\x00b", "\x85", "\ud800"])
def test_nothing_unprintable_is_shown(text):
    assert visible(text).isprintable()
    assert one_line(text).isprintable()


def test_printable_text_of_any_language_stays():
    assert visible("Müller 請求書 [bold]") == "Müller 請求書 [bold]"


def test_json_is_one_line_of_ascii(capsys):
    print_json({"subject": ESCAPES, "name": "Müller"})

    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert "\x1b" not in out
    assert json.loads(out) == {"subject": ESCAPES, "name": "Müller"}


def test_times_are_utc():
    time = datetime(2019, 5, 31, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))

    assert iso(time) == "2019-05-31T12:00:00.123456Z"
    assert datetime.fromisoformat(iso(time)) == time
    assert utc(time) == "2019-05-31 12:00:00"
    assert iso(None) is None
    assert utc(None) == ""


def test_iso_times_sort_as_text():
    whole = datetime(2019, 5, 31, tzinfo=UTC)

    assert iso(whole) < iso(whole + timedelta(microseconds=1))


def test_piped_table_has_one_line_a_row(capsys):
    recipient = "x" * 60 + "@" + "y" * 180 + ".example"
    print_table(HEADS, [row(), row(recipient, "s" * 200)])

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["ID", "Received", "Recipient", "Subject", "Reason", "Customer"]
    assert recipient in lines[2]
    assert "s" * 200 in lines[2]
    assert all(line.startswith(ID) for line in lines[1:])


def test_piped_table_has_no_escapes(capsys):
    print_table(HEADS, [row(subject=ESCAPES)])

    assert "\x1b" not in capsys.readouterr().out


def test_markup_in_a_subject_is_text(capsys):
    print_table(HEADS, [row(subject="[bold red]pay[/] :smile: [link=http://x.test]here[/link]")])

    assert "[bold red]pay[/] :smile: [link=http://x.test]here[/link]" in capsys.readouterr().out


def test_terminal_of_80_columns_has_two_lines_a_row(terminal):
    screen = terminal(80)
    print_table(HEADS, [row(), row(subject="a subject of some forty characters here")])

    lines = shown(screen)
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert sum(line.startswith(ID) for line in lines) == 2
    assert any("2019-05-31 12:00:00" in line and "hello" in line and "C-1018" in line for line in lines)


def test_wide_terminal_has_one_line_a_row(terminal):
    screen = terminal(160)
    print_table(HEADS, [row()])

    lines = shown(screen)
    assert [line.split()[0] for line in lines if line.startswith(ID)] == [ID]
    assert any(ID in line and "hello" in line and "C-1018" in line for line in lines)


def test_long_recipient_is_folded_and_not_cut(terminal):
    recipient = "someone.with.a.very.long.name.indeed.and.more@department.of.provider.example"
    screen = terminal(80)
    print_table(HEADS, [row(recipient)])

    cells = [line[24:53].strip() for line in shown(screen)]
    assert recipient in "".join(cells)
    assert "…" not in screen.getvalue()


def test_fields_without_value_are_left_out(capsys):
    print_fields((("ID", ID), ("Customer", None), ("Subject", f"x{ESCAPES}"), ("ID", "again")))

    assert capsys.readouterr().out == f"ID        {ID}\nSubject   x{visible(ESCAPES)}\nID        again\n"
