"""The envelope: the null reverse-path is a case of its own."""

import pytest

from smtpguard.domain.envelope import NULL_REVERSE_PATH, Body, parse_reverse_path
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.errors import MailboxSyntaxError


def test_null_reverse_path() -> None:
    """RFC 5321 4.5.5: a bounce comes from nobody, which is not the same as "nobody yet"."""
    assert parse_reverse_path("") is NULL_REVERSE_PATH
    assert NULL_REVERSE_PATH
    assert str(NULL_REVERSE_PATH) == ""


def test_reverse_path_is_a_mailbox() -> None:
    assert parse_reverse_path("Bounce+1@x") == parse_mailbox("bounce+1@X")


@pytest.mark.parametrize("text", [" ", "<>", "u", "@", "u@x y"])
def test_bad_reverse_path(text) -> None:
    with pytest.raises(MailboxSyntaxError):
        parse_reverse_path(text)


@pytest.mark.parametrize(("keyword", "body"), [("7BIT", Body.SEVEN_BIT), ("8BITMIME", Body.EIGHT_BIT_MIME)])
def test_body_is_the_keyword_of_rfc_6152(keyword, body) -> None:
    assert body is Body(keyword)
