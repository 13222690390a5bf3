"""What a session is offered."""

import pytest

from smtpguard.domain.capabilities import Capabilities
from smtpguard.smtp.extensions import Extensions, offer, without_extensions

OWN = {"max_message_bytes": 10_000, "starttls": False, "auth": False, "xclient": False}
PLAIN = ("PIPELINING", "SIZE 10000", "CHUNKING", "ENHANCEDSTATUSCODES", "HELP")


def smarthost(**offered) -> Capabilities:
    return Capabilities(**{"size": None, "eight_bit_mime": False, "smtputf8": False, "dsn": False} | offered)


@pytest.mark.parametrize(
    ("offered", "line"),
    [({"eight_bit_mime": True}, "8BITMIME"), ({"smtputf8": True}, "SMTPUTF8"), ({"dsn": True}, "DSN")],
)
def test_what_the_smarthost_offers_is_offered(offered, line) -> None:
    assert offer(smarthost(**offered), **OWN).lines() == (*PLAIN, line)
    assert offer(smarthost(), **OWN).lines() == PLAIN


@pytest.mark.parametrize(
    ("own", "line"),
    [
        ({"starttls": True}, "STARTTLS"),
        ({"auth": True}, "AUTH PLAIN LOGIN"),
        ({"xclient": True}, "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"),
    ],
)
def test_what_the_guard_does_itself(own, line) -> None:
    assert offer(smarthost(), **OWN | own).lines() == (*PLAIN, line)


@pytest.mark.parametrize(("size", "offered"), [(None, 10_000), (20_000, 10_000), (5_000, 3_976), (1_024, 1), (1, 1)])
def test_size_is_the_smaller_one_with_room_for_our_trace_field(size, offered) -> None:
    assert offer(smarthost(size=size), **OWN).size == offered
    assert without_extensions(smarthost(size=size), max_message_bytes=10_000) == Extensions(size=offered)


def test_unknown_smarthost_is_trusted_with_everything() -> None:
    """An application that misses SMTPUTF8 gives up for good, one that hears 451 later tries again."""
    offered = offer(None, **OWN)

    assert (offered.eight_bit_mime, offered.smtputf8, offered.dsn, offered.size) == (True, True, True, 10_000)
