"""What a trusted mail server says with XCLIENT."""

import pytest

from smtpguard.smtp.commands import CommandError
from smtpguard.smtp.xclient import UNKNOWN_PEER, Xclient, parse_xclient


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        ("ADDR=192.0.2.1", Xclient("192.0.2.1", None)),
        ("addr=192.0.2.1 NAME=crm.example PORT=4711 PROTO=ESMTP HELO=crm", Xclient("192.0.2.1", None)),
        ("ADDR=IPV6:2001:db8::1 DESTADDR=192.0.2.9 DESTPORT=25", Xclient("2001:db8::1", None)),
        ("ADDR=ipv6:::ffff:192.0.2.1", Xclient("192.0.2.1", None)),
        ("ADDR=[UNAVAILABLE] LOGIN=crm", Xclient(UNKNOWN_PEER, "crm")),
        ("ADDR=[TEMPUNAVAIL]", Xclient(UNKNOWN_PEER, None)),
        ("LOGIN=c+2Brm", Xclient(None, "c+rm")),
        ("LOGIN=[unavailable]", Xclient(None, "")),
        ("NAME=crm.example", Xclient(None, None)),
    ],
)
def test_xclient_is_read(arg, said) -> None:
    assert parse_xclient(arg) == said


@pytest.mark.parametrize(
    "arg",
    ["", "ADDR", "ADDR=", "=1", "ADDR=1.2.3", "ADDR=x", "ADDR=192.0.2.1 ADDR=192.0.2.2", "COLOUR=red", "LOGIN=a+0A"],
)
def test_bad_xclient_is_refused(arg) -> None:
    with pytest.raises(CommandError, match=r"501 5\.5\.4"):
        parse_xclient(arg)
