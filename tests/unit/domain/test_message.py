"""The message as bytes."""

import re
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from smtpguard.domain.application import Application, Origin
from smtpguard.domain.message import (
    MAX_HEADER_OCTETS,
    PURPOSE_HEADER,
    DotRewriter,
    HeaderTooBigError,
    LineFeedRewriter,
    WireScan,
    customer_of,
    find_header_end,
    is_verification_mark,
    read_header,
    received_field,
    stuff,
    summarise,
    take_out,
    unstuff,
    unstuffed,
)
from smtpguard.domain.policy import Policy
from smtpguard.domain.standing import CustomerUnnamed
from tests.unit.domain.reference import fields_line_by_line

NAME = "X-Customer-ID"
PIECES = st.lists(st.sampled_from([b"", b".", b"..", b"\r", b"\n", b"\r\n", b"\r\n.", b"a"]), max_size=12)
LINES = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a", b"a.b", b"\xff\x00"]), max_size=12)


@given(lines=LINES)
def test_stuffing_and_unstuffing_are_inverse(lines) -> None:
    message = b"".join(line + b"\r\n" for line in lines)

    wire = stuff(message)

    assert message == unstuff(wire)
    assert b"\r\n.\r\n" not in b"\r\n" + wire
    assert wire == unstuff_line_by_line(wire, back=True)


def rewritten(pieces: list[bytes]) -> tuple[bytes, bool]:
    rewriter = LineFeedRewriter()
    return b"".join(map(rewriter.rewrite, pieces)), rewriter.is_ambiguous


def with_crlf_line_by_line(wire: bytes) -> bytes:
    """A dot is stuffed where the line before ends with a bare LF."""
    lines = re.split(rb"(\r\n|\n)", wire)
    ends = [b"\r\n", *lines[1::2]]
    return b"\r\n".join(
        b"." + line if end == b"\n" and line.startswith(b".") else line
        for line, end in zip(lines[::2], ends, strict=True)
    )


@given(pieces=PIECES)
def test_line_feeds_become_line_ends_however_they_are_cut(pieces) -> None:
    wire = b"".join(pieces)
    normal, ambiguous = rewritten(pieces)

    assert (normal, ambiguous) == rewritten([wire])
    assert normal == with_crlf_line_by_line(wire)
    assert ambiguous == (b"\r\n.\n" in b"\r\n" + wire)
    assert normal.count(b"\n") == normal.count(b"\r\n")


@given(pieces=PIECES)
def test_no_final_dot_comes_out_of_line_feeds(pieces) -> None:
    """What is a final dot behind the guard has been one in front of it, or the message is refused."""
    wire = b"".join(pieces)
    normal, ambiguous = rewritten(pieces)

    assert b"\r\n.\r\n" not in b"\r\n" + normal or ambiguous or b"\r\n.\r\n" in b"\r\n" + wire


def unstuff_line_by_line(wire: bytes, *, back: bool) -> bytes:
    """RFC 5321 4.5.2 to the letter, and back."""
    lines = [line[1:] if line.startswith(b".") else line for line in wire.split(b"\r\n")]
    stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
    return b"\r\n".join(stuffed if back else lines)


@given(lines=LINES)
def test_unstuffing_is_that_of_the_rfc(lines) -> None:
    wire = b"".join(line + b"\r\n" for line in lines)

    assert unstuff_line_by_line(wire, back=False) == unstuff(wire)


@pytest.mark.parametrize(
    ("wire", "bare"),
    [
        (b"", False),
        (b"a\r\nb\r\n", False),
        (b"a\nb\r\n", True),
        (b"a\rb\r\n", True),
        (b"a\n\rb\r\n", True),
        (b"\r\r\n", True),
        (b"\n\r\n", True),
        (b"a\n.\r\nMAIL FROM:<x@y>\r\n", True),
        (b"a\r.\rb\r\n", True),
    ],
)
def test_bare_line_ends_are_found(wire, bare) -> None:
    for size in range(1, len(wire) + 2):
        scan = WireScan()
        for start in range(0, len(wire), size):
            scan.feed(wire[start : start + size])

        assert bare == scan.has_bare_line_end


@given(pieces=PIECES)
def test_what_is_counted_does_not_depend_on_the_cuts(pieces) -> None:
    scan, whole = WireScan(), WireScan()
    wire = b"".join(pieces)
    for piece in pieces:
        scan.feed(piece)
    whole.feed(wire)

    assert (whole.has_bare_line_end, whole.stuffed_dots) == (scan.has_bare_line_end, scan.stuffed_dots)
    assert len(wire) - len(unstuff(wire)) == scan.stuffed_dots
    assert scan.is_at_line_start == (not wire or wire.endswith(b"\r\n"))
    assert scan.has_bare_line_end == bool(set(wire.replace(b"\r\n", b"")) & set(b"\r\n"))


@given(pieces=PIECES)
def test_stuffing_does_not_depend_on_the_cuts(pieces) -> None:
    message = b"".join(pieces)
    stuffing = DotRewriter(stuffs=True)

    assert stuff(message) == b"".join(map(stuffing.rewrite, pieces))
    assert unstuff(message) == b"".join(unstuffed(pieces))


def test_header_section_ends_at_the_empty_line() -> None:
    header = read_header(b"Subject: a\r\n b\r\nX-Customer-ID: 1\r\n\r\nX-Customer-ID: 2\r\n")

    assert (header.values("subject"), header.values("x-customer-id")) == ([b"a b"], [b"1"])
    assert len(header) == 34


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"\r\n",
        b"no header at all\r\n",
        b"\r\nSubject: body\r\n",
        b" folded: first\r\n",
        b":x\r\n",
        b"a" * 500 + b": x\r\n",
        b"caf\xc3\xa9: x\r\n",
        b"a b: c\r\n",
    ],
)
def test_message_without_header(wire) -> None:
    assert len(read_header(wire)) == 0


def test_broken_line_ends_the_header_section() -> None:
    """As for Postfix: what follows is body, and the body is never touched."""
    header = read_header(b"From: a\r\nwhat is this\r\nX-Customer-ID: 7\r\n\r\n")

    assert (len(header), header.values("from"), header.values(NAME)) == (9, [b"a"], [])


def test_header_too_big() -> None:
    with pytest.raises(HeaderTooBigError):
        read_header(b"Subject: " + b"a" * MAX_HEADER_OCTETS + b"\r\n")
    with pytest.raises(HeaderTooBigError):
        read_header(b"a: b\r\n" * (MAX_HEADER_OCTETS // 6 + 1))


@pytest.mark.parametrize(
    ("wire", "end"),
    [
        (b"", -1),
        (b"\r\n", 2),
        (b"\r\n\r\n", 2),
        (b"a: b\r\n", -1),
        (b"a: b\r\n\r\n", 8),
        (b"a: b\r\n\r\nbody\r\n\r\n", 8),
    ],
)
def test_end_of_the_header(wire, end) -> None:
    assert {end} == {find_header_end(wire, start) for start in range(8)}


HEADER = b"From: a\r\nX-Customer-ID: 1\r\n 2\r\n"


@pytest.mark.parametrize("behind", [b"\r\n", b"\r\nbody", b"what is this\r\n", b"what is", b"-" * 201, b"caf\xc3"])
def test_header_that_is_seen_to_end_in_a_cut_message(behind) -> None:
    header = read_header(HEADER + behind, is_cut=True)

    assert (len(header), header.values("from"), header.values(NAME)) == (len(HEADER), [b"a"], [b"1 2"])


@pytest.mark.parametrize(
    "behind", [b"", b"\r", b" ", b"\t3", b" 3\r", b"X", b"X-Customer-ID", b"X :", b"X:", b"X: 3", b"X: 3\r", b"X \t\r"]
)
def test_header_that_may_go_on_behind_the_cut_is_too_big(behind) -> None:
    """A field that is read short would name another customer, and what is left of it would be relayed."""
    with pytest.raises(HeaderTooBigError):
        read_header(HEADER + behind, is_cut=True)

    assert read_header(HEADER + behind)


@given(
    at=st.integers(0, 60),
    lines=st.lists(st.sampled_from([b"A: b", b" c", b"", b"no", b"a:", b"\t", b"x" * 9, b".a: b", b". c"])),
)
def test_cut_header_is_read_whole_or_not_at_all(at, lines) -> None:
    wire = b"".join(line + b"\r\n" for line in lines)

    try:
        header = read_header(wire[:at], is_cut=at < len(wire))
    except HeaderTooBigError:
        return
    assert len(read_header(wire)) == len(header)


def test_fields_are_counted() -> None:
    header = read_header(b"Received: a\r\nreceived: b\r\nReceived-SPF: c\r\nX-Received: d\r\n\r\nReceived: e\r\n")

    assert header.count("received") == 2


@pytest.mark.parametrize("line", [b"a\rb: c", b"a: b\rc", b"a: b\nc", b" a\rb", b"\na: b", b"a: b\r", b"\r"])
def test_bare_line_end_ends_the_header_section(line) -> None:
    """Such a line is no field and continues none, so that nobody reads behind it what the guard has not read."""
    header = read_header(b"From: a\r\n" + line + b"\r\nX-Customer-ID: 7\r\n\r\n")

    assert (len(header), header.values("from"), header.values(NAME)) == (9, [b"a"], [])


PARTS = st.sampled_from(
    [
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b" ",
        b"\t",
        b":",
        b"a",
        b"A: b",
        b"a :",
        b"X-Customer-ID: 7",
        b"\xff",
        b"x" * 198,
    ]
)


@given(parts=st.lists(PARTS, max_size=12))
def test_fields_are_those_that_are_found_line_by_line(parts) -> None:
    wire = b"From: b\r\n" + b"".join(parts)
    fields = list(fields_line_by_line(wire))
    header = read_header(wire)

    assert len(header) == fields[-1][2]
    for name in {name for name, _, _ in fields} | {"a", "x-customer-id"}:
        spans = [(start, end) for each, start, end in fields if each == name]
        values = [wire[start:end].partition(b":")[2].replace(b"\r\n", b"").strip(b" \t") for start, end in spans]
        assert (spans, values, len(spans)) == (header.spans(name), header.values(name), header.count(name))


@pytest.mark.parametrize(
    "line",
    [
        b".X-Customer-ID: 1 2",
        b"X-Customer-ID: 1\r\n. 2",
        b".X-Customer-ID:\r\n.\t1\r\n 2",
        b"a: b\r\n. c\r\n.X-CUSTOMER-ID: 1 2",
    ],
)
def test_dot_in_front_of_a_line_hides_no_field(line) -> None:
    """Whoever gets the message sees it without that dot, whether it had to be stuffed or not."""
    wire = bytearray(line + b"\r\n.Subject: x\r\n\r\nbody\r\n")
    header = read_header(wire)
    take_out(wire, header, (NAME,))

    assert customer_of(header, NAME) == "1 2"
    assert wire.endswith(b".Subject: x\r\n\r\nbody\r\n")
    assert b"customer" not in wire.lower()


@given(parts=st.lists(PARTS | st.just(b"\r\n."), max_size=12))
def test_header_is_read_as_whoever_gets_the_message_reads_it(parts) -> None:
    wire = bytearray(b"".join(parts) + b"\r\n")
    assume(b"\r\n.\r\n" not in b"\r\n" + wire)
    message = bytearray(unstuff(wire))
    header, seen = read_header(wire), read_header(message)

    assert unstuff(wire[: len(header)]) == message[: len(seen)]
    for name in ("a", NAME):
        assert header.values(name) == seen.values(name)
    take_out(wire, header, (NAME,))
    take_out(message, seen, (NAME,))
    assert unstuff(wire) == message


@pytest.mark.parametrize(
    ("header", "customer"),
    [
        (b"", CustomerUnnamed.NONE),
        (b"X-Customer-ID:\r\n", CustomerUnnamed.NONE),
        (b"X-Customer-ID:   \r\n", CustomerUnnamed.NONE),
        (b"X-Customer-ID: 4711\r\n", "4711"),
        (b"x-customer-id:4711\r\n", "4711"),
        (b"X-CUSTOMER-ID :\t4711 \r\n", "4711"),
        (b"X-Customer-ID:\r\n 4711\r\n", "4711"),
        (b"X-Customer-ID: Doe GmbH\r\n", "Doe GmbH"),
        (b"X-Customer-ID: 1\r\nX-Customer-ID: 1\r\n", "1"),
        (b"X-Customer-ID: 1\r\nX-Customer-ID:\r\n", "1"),
        (b"X-Customer-ID: 1\r\nX-Customer-ID: 2\r\n", CustomerUnnamed.UNCLEAR),
        (b"X-Customer-ID: " + b"a" * 201 + b"\r\n", CustomerUnnamed.UNCLEAR),
        (b"X-Customer-ID: caf\xc3\xa9\r\n", CustomerUnnamed.UNCLEAR),
        (b"X-Customer-ID: a\x1b[31m\r\n", CustomerUnnamed.UNCLEAR),
        (b"X-Customer-ID: a\x00\r\n", CustomerUnnamed.UNCLEAR),
    ],
)
def test_customer_of_a_message(header, customer) -> None:
    assert customer == customer_of(read_header(b"From: a\r\n" + header + b"\r\nbody\r\n"), NAME)


@pytest.mark.parametrize(
    ("header", "is_mark"),
    [
        (b"X-Smtpguard-Purpose: verification\r\n", True),
        (b"x-smtpguard-PURPOSE:\tVeriFication \r\n", True),
        (b"X-Smtpguard-Purpose :\r\n verification\r\n\t\r\n", True),
        (b".X-Smtpguard-Purpose: verification\r\n", True),
        (b"X-Smtpguard-Purpose: verification\r\nX-Smtpguard-Purpose: verification\r\n", False),
        (b"X-Smtpguard-Purpose: verification\r\nSubject: x\r\nx-smtpguard-purpose:\r\n", False),
        (b"X-Smtpguard-Purpose: veri\r\n fication\r\n", False),
        (b"X-Smtpguard-Purpose: verification (really)\r\n", False),
        (b"X-Smtpguard-Purpose: verification, verification\r\n", False),
        (b"X-Smtpguard-Purpose: verification\0\r\n", False),
        (b"X-Smtpguard-Purpose: =?us-ascii?q?verification?=\r\n", False),
        ("X-Smtpguard-Purpose: verif\u0131cation\r\n".encode(), False),
        (b"X-Smtpguard-Purpose:\r\n", False),
        (b"X-Smtpguard-Purpose2: verification\r\n", False),
        (b"Subject: x\r\n\r\nX-Smtpguard-Purpose: verification\r\n", False),
        (b"Subject: X-Smtpguard-Purpose: verification\r\n", False),
    ],
)
def test_verification_mark(header, is_mark) -> None:
    assert is_mark == is_verification_mark(read_header(header + b"\r\n").values(PURPOSE_HEADER))


def test_taking_a_field_out_leaves_every_other_octet() -> None:
    wire = bytearray(
        b"From: a\r\nX-Customer-ID: 1\r\n 2\r\nSubject:x\r\n..y: z\r\nX-OTHER: b\r\nx-customer-id: 1\r\n\r\nX-Customer-ID: 1\r\n"
    )

    take_out(wire, read_header(wire), (NAME, "X-Other"))

    assert wire == b"From: a\r\nSubject:x\r\n..y: z\r\n\r\nX-Customer-ID: 1\r\n"


def test_taking_many_fields_out_of_a_big_message_takes_no_time() -> None:
    """A header full of them, in front of a body that is moved once."""
    body = b"\r\n" + b"a" * 20_000_000 + b"\r\n"
    wire = bytearray(b"x-customer-id:\r\n" * 16_000 + b"a: b\r\n" + body)
    header = read_header(wire)

    began = time.process_time()
    take_out(wire, header, (NAME, NAME))

    assert time.process_time() - began < 5  # half a minute where each field moves the body
    assert wire == b"a: b\r\n" + body


def test_value_of_a_field() -> None:
    """The first of several; the name may be written in any way."""
    header = read_header(b"subject: 1\r\nSUBJECT: 2\r\n\r\n")

    assert (header.value("Subject"), header.value("x-subject"), header.value("sub")) == (b"1", b"", b"")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        (b"=?utf-8?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        (b"=?x-unknown?q?a?=", "=?x-unknown?q?a?="),
        (b"=?utf-8?b?!?=", ""),
        ("=?é?q?x?=".encode(), "=?é?q?x?="),
        (b"gr\xc3\xbc\xc3\x9fe", "grüße"),
        (b"\xff", "\ufffd"),
        (b"=?utf-8?q?=1B[31mred?=", "?[31mred"),
        (b"=?utf-8?q?a=0D=0Ab?=", "a??b"),
        (b"x" * 5000, "x" * 200),
    ],
)
def test_summary_shows_one_harmless_line(raw, shown) -> None:
    assert shown == summarise(read_header(b"Subject: " + raw + b"\r\n\r\n")).subject


@given(raw=st.one_of(st.binary(max_size=200), st.from_regex(rb"=\?[^?]{0,9}\?[bqBQx]\?[^?]{0,9}\?=")))
def test_summary_of_anything(raw) -> None:
    value = raw.replace(b"\r", b"").replace(b"\n", b"")
    summary = summarise(read_header(b"Subject: " + value + b"\r\nFrom: " + value + b"\r\n\r\n"))

    assert summary.subject.isprintable()
    assert len(summary.sender) <= 200


APPLICATION = Application("crm", (), Policy())
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("helo", "peer", "first"),
    [
        ("app.example", "192.0.2.1", b"Received: from app.example ([192.0.2.1])"),
        ("[192.0.2.1]", "192.0.2.1", b"Received: from [192.0.2.1] ([192.0.2.1])"),
        ("evil\r\nBcc: x", "::1", b"Received: from evil?Bcc:?x ([IPv6:::1])"),
        ("caf\u00e9 (x)", "::1", b"Received: from caf?x? ([IPv6:::1])"),
    ],
)
def test_received_field(helo, peer, first) -> None:
    """RFC 5321 4.4; nothing that an application calls itself can add a line."""
    origin = Origin(APPLICATION, peer, helo, "ESMTP")
    field = received_field(origin, hostname="guard.example", transaction_id="T1", now=NOW)

    assert field.split(b"\r\n") == [
        first,
        b"\tby guard.example (smtpguard) with ESMTP id T1;",
        b"\tMon, 23 Nov 2026 12:00:00 +0000",
        b"",
    ]
    assert (len(read_header(field)), read_header(field).count("received")) == (len(field), 1)


def test_received_field_tells_the_time_of_each_message() -> None:
    """In UTC, to the second."""
    origin = Origin(APPLICATION, "192.0.2.1", "app", "ESMTP")
    times = [
        NOW,
        NOW + timedelta(microseconds=999_999),
        NOW + timedelta(seconds=1),
        NOW.astimezone(timezone(-HOUR)),
        NOW + HOUR,
    ]
    fields = [received_field(origin, hostname="guard.example", transaction_id="T1", now=time) for time in times]

    assert [field.split(b"\r\n")[2][18:] for field in fields] == [
        b"12:00:00 +0000",
        b"12:00:00 +0000",
        b"12:00:01 +0000",
        b"12:00:00 +0000",
        b"13:00:00 +0000",
    ]


def test_received_field_tells_of_tls() -> None:
    origin = Origin(APPLICATION, "192.0.2.1", "app", "ESMTPSA", "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384")
    field = received_field(origin, hostname="guard.example", transaction_id="T1", now=NOW)

    assert field.split(b"\r\n")[:3] == [
        b"Received: from app ([192.0.2.1])",
        b"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)",
        b"\tby guard.example (smtpguard) with ESMTPSA id T1;",
    ]
    assert (len(read_header(field)), read_header(field).count("received")) == (len(field), 1)
