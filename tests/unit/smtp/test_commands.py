"""The grammar of MAIL and RCPT."""

import pytest

from smtpguard.domain.envelope import NULL_REVERSE_PATH, Body, MailParameters
from smtpguard.smtp.commands import CommandError, parse_mail, parse_rcpt

MAX_SIZE = 1000


def mail(arg: str, *, extended: bool = True):
    return parse_mail(arg, max_size=MAX_SIZE, extended=extended)


@pytest.mark.parametrize(
    ("arg", "address", "parameters", "size"),
    [
        ("FROM:<a@b.example>", "a@b.example", MailParameters(), None),
        ("from:<a@b.example>", "a@b.example", MailParameters(), None),
        ("FROM: <a@b.example>", "a@b.example", MailParameters(), None),
        ("FROM:<>", "", MailParameters(), None),
        ("FROM:<a@b.example> SIZE=1000", "a@b.example", MailParameters(), 1000),
        ("FROM:<a@b.example> size=0  body=8bitmime", "a@b.example", MailParameters(Body.EIGHT_BIT_MIME), 0),
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
        ("FROM:<a@b.example> SMTPUTF8", "555 5.5.4"),
        ("FROM:<a@b.example> RET=HDRS", "555 5.5.4"),
    ],
)
def test_bad_mail_is_refused(arg, code) -> None:
    with pytest.raises(CommandError) as refused:
        mail(arg)

    assert str(refused.value).startswith(code)


def test_helo_takes_no_parameters() -> None:
    """RFC 5321 4.1.1.1."""
    with pytest.raises(CommandError, match=r"501 5\.5\.4"):
        mail("FROM:<a@b.example> SIZE=1", extended=False)


@pytest.mark.parametrize("address", ["a@b.example", '"a>b"@c.example', "Postmaster", "u@[192.0.2.1]"])
def test_rcpt_is_read_as_it_came(address) -> None:
    assert address == parse_rcpt(f"TO:<{address}>", extended=True).text


@pytest.mark.parametrize(
    ("arg", "code"),
    [
        ("TO:<>", "501 5.1.3"),
        ("TO:a@b.example", "501 5.1.3"),
        ("FROM:<a@b.example>", "501 5.5.4"),
        ("TO:<a@b.example> NOTIFY=NEVER", "555 5.5.4"),
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
        parse_rcpt(arg, extended=True)

    assert str(refused.value).startswith(code)
