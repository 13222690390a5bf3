"""The one table of replies, and the replies of a peer that are passed on."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpguard.domain import reply as table
from smtpguard.domain.reply import (
    MAX_TEXT_CHARACTERS,
    R250_OK,
    R451_ABORTED,
    Reply,
    clean_text,
    complete_reply,
    peer_reply,
)

CONSTANTS = {name: value for name, value in vars(table).items() if isinstance(value, Reply)}
WITHOUT_ENHANCED = {"R220_READY", "R354_SEND"}  # RFC 2034 4: no greeting, no 3yz


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant_is_what_its_name_says(name) -> None:
    """Its name begins with its code, the enhanced code is of the same class, its text is short and printable."""
    constant = CONSTANTS[name]

    assert re.fullmatch(rf"R{constant.code}(_[A-Z0-9]+)+", name)
    assert (constant.enhanced == "") == (name in WITHOUT_ENHANCED)
    assert re.fullmatch(rf"({str(constant.code)[0]}\.[0-9]{{1,3}}\.[0-9]{{1,3}})?", constant.enhanced)
    assert re.fullmatch(r"[ -~]{1,80}", constant.text)
    assert constant.with_text(constant.text) == constant


def test_no_two_constants_say_the_same() -> None:
    assert len(CONSTANTS) == len(set(CONSTANTS.values()))


@pytest.mark.parametrize(
    ("code", "positive", "transient"),
    [
        (200, True, False),
        (299, True, False),
        (300, False, False),
        (354, False, False),
        (399, False, False),
        (400, False, True),
        (499, False, True),
        (500, False, False),
        (599, False, False),
    ],
)
def test_class_of_a_reply(code, positive, transient) -> None:
    reply = Reply(code, "", "")

    assert (positive, transient) == (reply.is_positive, reply.is_transient)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ((250, "2.0.0", "OK"), "250 2.0.0 OK"),
        ((354, "", "Go on"), "354 Go on"),
        ((250, "2.0.0", ""), "250 2.0.0"),
        ((250, "", ""), "250"),
    ],
)
def test_reply_as_a_line(parts, line) -> None:
    reply = Reply(*parts)

    assert (line, f"{line}\r\n") == (str(reply), reply.wire.decode("ascii"))


def test_reply_with_another_text() -> None:
    assert str(R250_OK.with_text("OK id=7\r\n550 no")) == "250 2.0.0 OK id=7?550 no"
    assert R451_ABORTED.with_text("x") == Reply(451, "4.3.0", "x")


@pytest.mark.parametrize(
    ("code", "lines", "expected"),
    [
        (250, ["2.1.5 Ok"], Reply(250, "2.1.5", "Ok")),
        (250, ["2.1.5"], Reply(250, "2.1.5", "")),
        (250, ["2.1.5   Ok  "], Reply(250, "2.1.5", "Ok")),
        (550, ["5.1.1 no such user", "5.1.1 see the manual"], Reply(550, "5.1.1", "no such user see the manual")),
        (550, ["5.1.1 no such user", "ask us"], Reply(550, "5.1.1", "no such user ask us")),
        (550, ["no such user", "5.1.1 ask us"], Reply(550, "", "no such user 5.1.1 ask us")),
        (550, ["5.1.1 a", "5.1.10 b", "5.1.1"], Reply(550, "5.1.1", "a 5.1.10 b")),
        (550, ["5.1.1 a", "5.7.1 b"], Reply(550, "5.1.1", "a 5.7.1 b")),
        (550, ["4.1.1 try later"], Reply(550, "", "4.1.1 try later")),
        (250, ["5.1.1 never mind"], Reply(250, "", "5.1.1 never mind")),
        (354, ["3.0.0 go"], Reply(354, "", "3.0.0 go")),
        (550, ["5.1.1.1 a"], Reply(550, "", "5.1.1.1 a")),
        (550, ["5.1.1000 a"], Reply(550, "", "5.1.1000 a")),
        (550, ["5.1.1: a"], Reply(550, "", "5.1.1: a")),
        (550, ["5.１.1 a"], Reply(550, "", "5.?.1 a")),
        (550, [" 5.1.1 a"], Reply(550, "5.1.1", "a")),
        (550, ["", "5.1.1 a", "  ", "b"], Reply(550, "5.1.1", "a b")),
        (421, ["4.3.2 bye"], Reply(421, "4.3.2", "bye")),
        (250, [], Reply(250, "", "")),
        (250, [""], Reply(250, "", "")),
        (250, ["", ""], Reply(250, "", "")),
        (250, ["a\r\n250 b"], Reply(250, "", "a?250 b")),
        (250, ["a\0\x1b[31m\x7fb"], Reply(250, "", "a?[31m?b")),
        (250, ["2.0.0 Gr\u00fc\u00dfe, \u4f60\u597d"], Reply(250, "2.0.0", "Gr?e, ?")),
        (250, ["a\tb\u2028"], Reply(250, "", "a?b")),
        (250, ["2.0.0 " + "x" * 3000], Reply(250, "2.0.0", "x" * MAX_TEXT_CHARACTERS)),
        (250, ["x" * (MAX_TEXT_CHARACTERS - 1) + " yz"], Reply(250, "", "x" * (MAX_TEXT_CHARACTERS - 1))),
    ],
    ids=ascii,
)
def test_reply_of_a_peer(code, lines, expected) -> None:
    """RFC 3463 2: an enhanced code of another class than the reply's is text."""
    assert expected == peer_reply(code, lines)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("250 OK", "250 2.0.0 OK"),
        ("250 2.1.0 OK", "250 2.1.0 OK"),
        ("221 Bye", "221 2.0.0 Bye"),
        ("502 Could not VRFY", "502 5.5.1 Could not VRFY"),
        ("220 ready", "220 ready"),
        ("354 go", "354 go"),
        ("599 odd", "599 odd"),
        ("250", "250 2.0.0"),
    ],
)
def test_reply_line_is_completed(line, expected) -> None:
    """RFC 2034: whoever advertises ENHANCEDSTATUSCODES gives one with each 2yz, 4yz and 5yz it knows one for."""
    assert expected == str(complete_reply(line))


def test_default_enhanced_codes_are_of_their_class() -> None:
    for code in range(200, 600):
        enhanced = complete_reply(f"{code} x").enhanced
        assert enhanced == "" or enhanced.startswith(f"{code // 100}.")


CODES = st.integers(min_value=200, max_value=599)
NEAR_ENHANCED = st.from_regex(r"[2-6]\.\d{1,4}\.\d{1,4}[ \t]{0,2}.{0,20}", fullmatch=True)
LINES = st.lists(st.text() | NEAR_ENHANCED, max_size=4)


@given(code=CODES, lines=LINES)
@example(code=250, lines=["2.999.999 " + "a b" * 1000] * 100)
def test_any_peer_becomes_one_line(code, lines) -> None:
    """RFC 5321 4.5.3.1.5: at most 512 octets with the CRLF; RFC 5321 4.2.1: printable ASCII."""
    cleaned = peer_reply(code, lines)

    assert re.fullmatch(rf"{code}( [ -~]{{0,506}})?", str(cleaned))
    assert cleaned == peer_reply(cleaned.code, [str(cleaned)[4:]])


@given(text=st.text())
def test_any_text_is_cleaned_once_and_for_all(text) -> None:
    cleaned = clean_text(text)

    assert re.fullmatch(rf"[ -~]{{0,{MAX_TEXT_CHARACTERS}}}", cleaned)
    assert cleaned == clean_text(cleaned) == cleaned.strip()
