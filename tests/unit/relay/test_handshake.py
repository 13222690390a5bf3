"""What the smarthost offers in its reply to EHLO."""

import pytest

from smtpguard.relay.handshake import parse_capabilities


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["host greets you"], {}),
        (["PIPELINING"], {}),
        (["host", "PIPELINING", "SIZE 1000", "8BITMIME"], {"PIPELINING": "", "SIZE": "1000", "8BITMIME": ""}),
        (["host", "pipelining", "Size 1000"], {"PIPELINING": "", "SIZE": "1000"}),
        (["host", "AUTH PLAIN LOGIN", "SIZE"], {"AUTH": "PLAIN LOGIN", "SIZE": ""}),
        (["host", "", "  PIPELINING ", "X"], {"PIPELINING": "", "X": ""}),
    ],
)
def test_keywords_and_their_values(lines: list[str], expected: dict[str, str]) -> None:
    assert expected == parse_capabilities(lines)
