"""The reply parser: strict, and indifferent to how the octets are cut."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.relay.parser import MAX_LINE_OCTETS, MAX_LINES, PeerReply, ReplyParser, ReplySyntaxError


def parse(*chunks: bytes) -> tuple[list[PeerReply], str]:
    """Feed chunks; return the replies before the error, and the error ("" for none)."""
    parser = ReplyParser()
    replies = []
    try:
        for chunk in chunks:
            for reply in parser.feed(chunk):
                replies.append(reply)
    except ReplySyntaxError as error:
        return replies, str(error)
    return replies, ""


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"250 ok\r\n", [PeerReply(250, ("ok",))]),
        (b"250\r\n", [PeerReply(250, ("",))]),
        (b"250 \r\n", [PeerReply(250, ("",))]),
        (b"250-a\r\n250-b\r\n250 c\r\n", [PeerReply(250, ("a", "b", "c"))]),
        (b"250-a\r\n250\r\n", [PeerReply(250, ("a", ""))]),
        (b"354 go\r\n421 no\r\n", [PeerReply(354, ("go",)), PeerReply(421, ("no",))]),
        (b"571 an unusual code\r\n", [PeerReply(571, ("an unusual code",))]),
        (b"550 gr\xc3\xbc\xc3\x9fe\r\n", [PeerReply(550, ("gr\xc3\xbc\xc3\x9fe",))]),
        (b"550 \x00\t\x1b[0m\r\n", [PeerReply(550, ("\x00\t\x1b[0m",))]),
    ],
)
def test_what_is_a_reply(octets: bytes, expected: list[PeerReply]) -> None:
    assert (expected, "") == parse(octets)


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"\n",
        b"25\r\n",
        b"25O ok\r\n",
        b"150 go on\r\n",
        b"050 ok\r\n",
        b"650 ok\r\n",
        b"2500 ok\r\n",
        b" 250 ok\r\n",
        b"250_ok\r\n",
        b"250ok\r\n",
        b"250 ok\n",
        b"250 ok\r\r\n",
        b"250 o\rk\r\n",
        b"250-a\r\n251 b\r\n",
        b"250-a\r\n\r\n",
        b"250-a\r\nb\r\n",
        b"\xb2\xb5\xb0 ok\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x16\x03\x01\x00\n",
    ],
)
def test_what_is_no_reply(octets: bytes) -> None:
    replies, error = parse(octets)

    assert replies == []
    assert error.isascii()
    assert error.isprintable()


def test_replies_before_the_nonsense_count() -> None:
    replies, error = parse(b"250 ok\r\n550 no\r\nnonsense\r\n250 too late\r\n")

    assert [reply.code for reply in replies] == [250, 550]
    assert "nonsense" in error


@pytest.mark.parametrize(("octets", "fits"), [(MAX_LINE_OCTETS, True), (MAX_LINE_OCTETS + 1, False)])
def test_longest_line(octets: int, fits: bool) -> None:
    line = b"250 ".ljust(octets - 2, b"x") + b"\r\n"

    replies, error = parse(line)

    assert fits == (len(replies) == 1) == (not error)


def test_line_without_end_is_not_collected() -> None:
    replies, error = parse(*[b"250 "] + [b"x" * 100] * 21)

    assert replies == []
    assert "octets" in error


@pytest.mark.parametrize(("lines", "fits"), [(MAX_LINES, True), (MAX_LINES + 1, False)])
def test_most_lines(lines: int, fits: bool) -> None:
    replies, error = parse(b"250-x\r\n" * (lines - 1) + b"250 x\r\n")

    assert fits == (len(replies) == 1) == (not error)


@pytest.mark.parametrize("octets", [b"2", b"250 ok", b"250 ok\r", b"250-a\r\n", b"250 ok\r\n2"])
def test_unfinished_reply_shows(octets: bytes) -> None:
    parser = ReplyParser()
    list(parser.feed(octets))

    assert parser.is_mid_reply


def test_finished_reply_leaves_nothing() -> None:
    parser = ReplyParser()
    list(parser.feed(b"250-a\r\n250 b\r\n"))

    assert not parser.is_mid_reply


def test_a_cleaned_reply_is_one_line_of_printable_ascii() -> None:
    (reply,), _ = parse(b"550-5.1.1 gr\xc3\xbc\xc3\x9fe\x00\r\n550 5.1.1 \x1b[31mred\r\n")

    assert str(reply.cleaned) == "550 5.1.1 gr?e? ?[31mred"


REPLY_TEXT = st.binary(max_size=30).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))
REPLY = st.builds(
    lambda code, texts: b"".join(b"%d-%b\r\n" % (code, text) for text in texts[:-1]) + b"%d %b\r\n" % (code, texts[-1]),
    st.integers(200, 599),
    st.lists(REPLY_TEXT, min_size=1, max_size=5),
)
ALMOST = st.lists(
    st.one_of(
        REPLY, st.sampled_from([b"250 ok\n", b"250-", b"\r\n", b"\n", b"\r", b"9", b"250", b"250 " + b"x" * 2040])
    ),
    max_size=8,
).map(b"".join)
PLACES = st.lists(st.integers(0, 5000), max_size=30)


@given(replies=st.lists(REPLY, max_size=6), places=PLACES)
def test_any_cutting_gives_the_same_replies(replies: list[bytes], places: list[int]) -> None:
    octets = b"".join(replies)

    parsed, error = parse(*cut(octets, places))

    assert not error
    assert len(parsed) == len(replies)
    assert (parsed, error) == parse(octets)


@given(octets=st.one_of(st.binary(max_size=300), ALMOST), places=PLACES)
def test_any_cutting_of_garbage_gives_the_same_error(octets: bytes, places: list[int]) -> None:
    """And nothing but the parser's own error."""
    assert parse(octets) == parse(*cut(octets, places))


@given(octets=st.one_of(st.binary(max_size=300), ALMOST))
def test_a_reply_is_never_made_out_of_garbage(octets: bytes) -> None:
    """What is parsed, written out again, is what came."""
    replies, _ = parse(octets)

    written = b"".join(
        b"%d%b%b\r\n" % (reply.code, b" " if last else b"-", text.encode("latin-1"))
        for reply in replies
        for last, text in zip([False] * (len(reply.lines) - 1) + [True], reply.lines, strict=True)
    )
    assert re.sub(rb"(?m)^([0-9]{3})\r$", rb"\1 \r", octets).startswith(written)
