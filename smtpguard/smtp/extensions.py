"""What a session is offered at EHLO: what the guard does, cut down to what the smarthost can pass on."""

from dataclasses import dataclass
from functools import lru_cache

from smtpguard.domain.capabilities import Capabilities
from smtpguard.service.accept import RECEIVED_ALLOWANCE

REMEMBERED = 64
"""How many offers are kept: all sessions of a kind are offered the same."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a session was offered."""

    size: int
    """The biggest message, in octets."""
    eight_bit_mime: bool = False
    smtputf8: bool = False
    dsn: bool = False
    starttls: bool = False
    auth: bool = False
    xclient: bool = False

    def lines(self) -> tuple[str, ...]:
        """Return the lines of the reply to EHLO."""
        optional = {
            "8BITMIME": self.eight_bit_mime,
            "SMTPUTF8": self.smtputf8,
            "DSN": self.dsn,
            "STARTTLS": self.starttls,
            "AUTH PLAIN LOGIN": self.auth,
            "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT": self.xclient,
        }
        always = ("PIPELINING", f"SIZE {self.size}", "CHUNKING", "ENHANCEDSTATUSCODES", "HELP")
        return always + tuple(line for line, offered in optional.items() if offered)


@lru_cache(REMEMBERED)
def offer(
    smarthost: Capabilities | None, *, max_message_bytes: int, starttls: bool, auth: bool, xclient: bool
) -> Extensions:
    """Return what to offer.

    What the guard does by itself, and towards the smarthost does without (PIPELINING, CHUNKING), is offered always.
    While nobody knows what the smarthost offers (None), everything is: an application that misses SMTPUTF8 gives its
    message up for good, one that hears later that the smarthost is away tries again.
    """
    return Extensions(
        size=_size(smarthost, max_message_bytes),
        eight_bit_mime=smarthost is None or smarthost.eight_bit_mime,
        smtputf8=smarthost is None or smarthost.smtputf8,
        dsn=smarthost is None or smarthost.dsn,
        starttls=starttls,
        auth=auth,
        xclient=xclient,
    )


@lru_cache(REMEMBERED)
def without_extensions(smarthost: Capabilities | None, *, max_message_bytes: int) -> Extensions:
    """Return what holds after HELO: the size counts even where it is not said."""
    return Extensions(size=_size(smarthost, max_message_bytes))


def _size(smarthost: Capabilities | None, max_message_bytes: int) -> int:
    if smarthost is None or smarthost.size is None:
        return max_message_bytes
    return max(1, min(max_message_bytes, smarthost.size - RECEIVED_ALLOWANCE))
