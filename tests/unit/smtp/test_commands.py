"""The grammar of MAIL, RCPT and BDAT."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.domain.envelope import NO_RCPT_PARAMETERS, NULL_REVERSE_PATH, Body, MailParameters, RcptParameters
from smtpguard.smtp.commands import CommandError, decode_xtext, parse_bdat, parse_mail, parse_rcpt
from smtpguard.smtp.extensions import Extensions

ALL = Extensions(size=1000, eight_bit_mime=True, smtputf8=True, dsn=True)
NONE = Extensions(size=1000)


def mail(arg: str, *, extended: bool = True, offered: Extensions = ALL):
    return parse_mail(arg, offered=offered, extended=extended)


def rcpt(arg: str, *, smtputf8: bool = False, offered: Extensions = ALL):
    return parse_rcpt(arg, offered=offered, extended=True, smtputf8=smtputf8)


@pytest.mark.parametrize(
    ("arg", "address", "parameters", "size"),
    [
        ("FROM:<a@b.example>", "a@b.example", MailParameters(), None),
        ("from:<a@b.example>", "a@b.example", MailParameters(), None),
        ("FROM: <a@b.example>", "a@b.example", MailParameters(), None),
        ("FROM:<>", "", MailParameters(), None),
        ("FROM:<a@b.example> SIZE=1000", "a@b.example", MailParameters(), 1000),
        ("FROM:<a@b.example> size=0  body=8bitmime", "a@b.example", MailParameters(Body.EIGHT_BIT_MIME), 0),
        ("FROM:<a@b.example> smtputf8", "a@b.example", MailParameters(smtputf8=True), None),
        ("FROM:<ä@b.example> SMTPUTF8", "ä@b.example", MailParameters(smtputf8=True), None),
        (
            "FROM:<a@b.example> ret=Hdrs ENVID=QQ+2B314",
            "a@b.example",
            MailParameters(ret="Hdrs", envid="QQ+2B314"),
            None,
        ),
        ("FROM:<a@b.example> AUTH=<>", "a@b.example", MailParameters(), None),
        ("FROM:<a@b.example> auth=e+3Dmc2@example.com", "a@b.example", MailParameters(), None),
        ('FROM:<"a> SIZE=1"@b.example> BODY=7BIT', '"a> SIZE=1"@b.example', MailParameters(Body.SEVEN_BIT), None),
    ],
)
def test_mail_is_read(arg, address, parameters, size) -> None:
    reverse_path, given, declared = mail(arg)

    assert (address, parameters, size) == (str(reverse_path), given, declared)


def test_null_reverse_path_is_a_case_of_its_own() -> None:
    assert mail("FROM:<>")[0] is NULL_REVERSE_PATH


@pytest.mark.parametrize(
    ("arg", "code"),
    [
        ("", "501 5.5.4"),
        ("FROM", "501 5.5.4"),
        ("TO:<a@b.example>", "501 5.5.4"),
        ("FROM:a@b.example", "501 5.1.7"),
        ("FROM:<a@b.example", "501 5.1.7"),
        ("FROM:<a@b.example>SIZE=1", "501 5.1.7"),
        ("FROM:<@c.example:a@b.example>", "553 5.1.7"),
        ("FROM:<a b@c.example>", "553 5.1.7"),
        ("FROM:<Postmaster>", "553 5.1.7"),
        ("FROM:<ä@b.example>", "553 5.6.7"),
        ("FROM:<a\udcff@b.example>", "553 5.6.7"),
        ("FROM:<a@b.example> SIZE=1001", "552 5.3.4"),
        ("FROM:<a@b.example> SIZE=99999999999999999999", "552 5.3.4"),
        ("FROM:<a@b.example> SIZE", "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=", "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=-1", "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=1 SIZE=1", "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=1 size=1", "501 5.5.4"),
        ("FROM:<a@b.example> BODY=BINARYMIME", "501 5.5.4"),
        ("FROM:<a@b.example> BODY", "501 5.5.4"),
        ("FROM:<a@b.example> -X=1", "501 5.5.4"),
        ("FROM:<a@b.example> MT-PRIORITY=3", "555 5.5.4"),
        ("FROM:<a@b.example> NOTIFY=NEVER", "555 5.5.4"),
        ("FROM:<a@b.example> X=ä", "555 5.5.4"),
        ("FROM:<a@b.example> ENVID=ä SMTPUTF8", "501 5.5.4"),
        ("FROM:<a\udcff@b.example> SMTPUTF8", "553 5.1.7"),
        ("FROM:<a@b.example> SMTPUTF8=1", "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=1\tBODY=7BIT", "501 5.5.4"),
        ("FROM:<a@b.example> RET", "501 5.5.4"),
        ("FROM:<a@b.example> RET=BODY", "501 5.5.4"),
        ("FROM:<a@b.example> ENVID=a+2b", "501 5.5.4"),
        ("FROM:<a@b.example> ENVID=a+", "501 5.5.4"),
        ("FROM:<a@b.example> ENVID=a=b", "501 5.5.4"),
        ("FROM:<a@b.example> ENVID=a+0D+0ARCPT", "501 5.5.4"),
        (f"FROM:<a@b.example> ENVID={'x' * 101}", "501 5.5.4"),
        ("FROM:<a@b.example> AUTH", "501 5.5.4"),
        ("FROM:<a@b.example> AUTH=a+0A", "501 5.5.4"),
    ],
)
def test_bad_mail_is_refused(arg, code) -> None:
    with pytest.raises(CommandError) as refused:
        mail(arg)

    assert str(refused.value).startswith(code)


@pytest.mark.parametrize(
    ("arg", "code"),
    [
        ("FROM:<a@b.example> SMTPUTF8", "550 5.6.7"),
        ("FROM:<a@b.example> RET=HDRS", "555 5.5.4"),
        ("FROM:<a@b.example> ENVID=x", "555 5.5.4"),
        ("FROM:<a@b.example> BODY=8BITMIME", "555 5.5.4"),
    ],
)
def test_what_is_not_offered_is_refused(arg, code) -> None:
    with pytest.raises(CommandError) as refused:
        mail(arg, offered=NONE)

    assert str(refused.value).startswith(code)


def test_helo_takes_no_parameters() -> None:
    """RFC 5321 4.1.1.1."""
    with pytest.raises(CommandError, match=r"501 5\.5\.4"):
        mail("FROM:<a@b.example> SIZE=1", extended=False)


@pytest.mark.parametrize("address", ["a@b.example", '"a>b"@c.example', "Postmaster", "u@[192.0.2.1]"])
def test_rcpt_is_read_as_it_came(address) -> None:
    recipient, parameters = rcpt(f"TO:<{address}>")

    assert (address, NO_RCPT_PARAMETERS) == (recipient.text, parameters)


@pytest.mark.parametrize(
    ("arg", "parameters"),
    [
        ("NOTIFY=NEVER", RcptParameters(notify="NEVER")),
        ("notify=Success,delay", RcptParameters(notify="Success,delay")),
        ("ORCPT=rfc822;Bob+2Btag@b.example", RcptParameters(orcpt="rfc822;Bob+2Btag@b.example")),
        ("ORCPT=utf-8;b\\x{E4}r@b.example", RcptParameters(orcpt="utf-8;b\\x{E4}r@b.example")),
        ("orcpt=RFC822;a@b NOTIFY=FAILURE", RcptParameters(notify="FAILURE", orcpt="RFC822;a@b")),
    ],
)
def test_delivery_status_parameters_are_kept_as_they_came(arg, parameters) -> None:
    """RFC 3461: for somebody else to read."""
    assert rcpt(f"TO:<a@b.example> {arg}")[1] == parameters


def test_original_recipient_in_utf8_where_it_was_asked_for() -> None:
    """RFC 6533 3."""
    recipient, parameters = rcpt("TO:<bär@b.example> ORCPT=utf-8;bär@b.example", smtputf8=True)

    assert (recipient.text, parameters.orcpt) == ("bär@b.example", "utf-8;bär@b.example")


@pytest.mark.parametrize(
    ("arg", "code"),
    [
        ("TO:<>", "501 5.1.3"),
        ("TO:a@b.example", "501 5.1.3"),
        ("FROM:<a@b.example>", "501 5.5.4"),
        ("TO:<a@b.example> SIZE=1", "555 5.5.4"),
        ("TO:<ä@b.example>", "553 5.6.7"),
        ("TO:<a@b.example> NOTIFY", "501 5.5.4"),
        ("TO:<a@b.example> NOTIFY=NEVER,SUCCESS", "501 5.5.4"),
        ("TO:<a@b.example> NOTIFY=SOMETIMES", "501 5.5.4"),
        ("TO:<a@b.example> NOTIFY=\u017fuccess", "501 5.5.4"),
        ("TO:<a@b.example> ORCPT=a@b", "501 5.5.4"),
        ("TO:<a@b.example> ORCPT=rfc822;", "501 5.5.4"),
        ("TO:<a@b.example> ORCPT=;a@b", "501 5.5.4"),
        ("TO:<a@b.example> ORCPT=rfc822;a+0D+0Ab", "501 5.5.4"),
        ("TO:<a@b.example> ORCPT=utf-8;bär@b.example", "501 5.5.4"),
        (f"TO:<a@b.example> ORCPT=rfc822;{'x' * 500}", "501 5.5.4"),
        ("TO:<a@b.example>,<c@d.example>", "501 5.1.3"),
        ("TO:<u@=?utf-8?q?evil.example?=>", "553 5.1.3"),
        ("TO:<u(comment)@c.example>", "553 5.1.3"),
        ("TO:< u@c.example >", "553 5.1.3"),
        ("TO:<@a.example,@b.example:u@c.example>", "553 5.1.3"),
        ("TO:<a\0b@c.example>", "553 5.1.3"),
        ("TO:<a\rb@c.example>", "553 5.1.3"),
        ("TO:<u@c.example.>", "553 5.1.3"),
        ("TO:<u>", "553 5.1.3"),
    ],
)
def test_bad_rcpt_is_refused(arg, code) -> None:
    with pytest.raises(CommandError) as refused:
        rcpt(arg)

    assert str(refused.value).startswith(code)


@pytest.mark.parametrize("arg", ["NOTIFY=NEVER", "ORCPT=rfc822;a@b"])
def test_delivery_status_parameters_that_are_not_offered(arg) -> None:
    with pytest.raises(CommandError, match=r"555 5\.5\.4"):
        rcpt(f"TO:<a@b.example> {arg}", offered=NONE)


@pytest.mark.parametrize(
    ("arg", "chunk"), [("0", (0, False)), ("17", (17, False)), ("17 LAST", (17, True)), ("0  last", (0, True))]
)
def test_bdat_is_read(arg, chunk) -> None:
    assert parse_bdat(arg) == chunk


@pytest.mark.parametrize("arg", ["", "LAST", "-1", "1 2", "1LAST", "1 LAST x", "0x10", "9" * 21, "\u0661"])
def test_bad_bdat_is_refused(arg) -> None:
    with pytest.raises(CommandError, match=r"501 5\.5\.4"):
        parse_bdat(arg)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1))
def test_xtext_is_decoded(text) -> None:
    encoded = "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)

    assert decode_xtext(encoded) == text


@given(st.text())
def test_no_argument_is_too_odd_for_an_answer(text) -> None:
    """Whatever comes is read, or refused with a reply."""
    for parse, keyword in ((mail, "FROM:"), (rcpt, "TO:"), (parse_bdat, "")):
        for arg in (text, f"{keyword}<a@b.example> {text}", f"{keyword}<{text}>"):
            with suppress(CommandError):
                parse(arg)
