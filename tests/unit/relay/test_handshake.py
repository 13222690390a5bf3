"""What the smarthost offers in its reply to EHLO."""

import pytest

from smtpguard.domain.capabilities import Capabilities
from smtpguard.relay.handshake import known_capabilities, parse_capabilities


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["host greets you"], {}),
        (["PIPELINING"], {}),
        (["host", "PIPELINING", "SIZE 1000", "8BITMIME"], {"PIPELINING": "", "SIZE": "1000", "8BITMIME": ""}),
        (["host", "pipelining", "Size 1000"], {"PIPELINING": "", "SIZE": "1000"}),
        (["host", "AUTH PLAIN LOGIN", "SIZE"], {"AUTH": "PLAIN LOGIN", "SIZE": ""}),
        (["host", "AUTH=LOGIN PLAIN"], {"AUTH": "LOGIN PLAIN"}),
        (["host", "AUTH CRAM-MD5", "auth=login plain"], {"AUTH": "CRAM-MD5 LOGIN plain"}),
        (["host", "", "  PIPELINING ", "X"], {"PIPELINING": "", "X": ""}),
        (["host", "=", " = x"], {}),
    ],
)
def test_keywords_and_their_values(lines: list[str], expected: dict[str, str]) -> None:
    assert expected == parse_capabilities(lines)


@pytest.mark.parametrize(
    ("offer", "size"),
    [
        ("SIZE 1000", 1000),
        ("SIZE 0", None),
        ("SIZE", None),
        ("SIZE many", None),
        ("SIZE -1", None),
        ("SIZE \u00b2", None),
        ("SIZE 1 2", None),
        ("SIZE 99999999999999999999", 99999999999999999999),
    ],
)
def test_the_largest_message(offer: str, size: int | None) -> None:
    """RFC 1870 3: no value, or 0, tells of no limit; nonsense is taken for that."""
    assert known_capabilities(parse_capabilities(["host", offer])).size == size


def test_what_concerns_a_message_and_its_envelope() -> None:
    nothing = Capabilities(size=None, eight_bit_mime=False, smtputf8=False, dsn=False)
    everything = Capabilities(size=5, eight_bit_mime=True, smtputf8=True, dsn=True)

    assert known_capabilities({"PIPELINING": "", "AUTH": "PLAIN"}) == nothing
    assert known_capabilities({"SIZE": "5", "8BITMIME": "", "SMTPUTF8": "", "DSN": ""}) == everything
