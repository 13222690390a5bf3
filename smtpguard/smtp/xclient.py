"""XCLIENT: a trusted mail server says who the application really is.

The grammar is Postfix's (XCLIENT_README): ``attribute=value``, values in xtext, ``[UNAVAILABLE]`` for unknown.
"""

from dataclasses import dataclass

from smtpguard.domain.application import ip_address_of
from smtpguard.domain.mailbox import ascii_lower
from smtpguard.domain.reply import R501_SYNTAX
from smtpguard.smtp.commands import CommandError, decode_xtext

_ATTRIBUTES = frozenset({"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"})
UNKNOWN_PEER = "unknown"

_UNKNOWN = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})


@dataclass(frozen=True, slots=True)
class Xclient:
    """What was said; None where nothing was."""

    address: str | None
    """An IP address, or UNKNOWN_PEER."""
    login: str | None
    """Empty: nobody logged in, or it is not known who."""


def parse_xclient(arg: str) -> Xclient:
    """Read what follows ``XCLIENT``. What the guard has no use for is read and left. Raises CommandError."""
    given: dict[str, str] = {}
    for part in arg.split(" "):
        name, separator, value = part.partition("=")
        if not separator or name.upper() not in _ATTRIBUTES or name.upper() in given:
            raise CommandError(R501_SYNTAX)
        given[name.upper()] = "" if value.upper() in _UNKNOWN else decode_xtext(value)
    if not given:
        raise CommandError(R501_SYNTAX)
    return Xclient(_address(given.get("ADDR")), given.get("LOGIN"))


def _address(value: str | None) -> str | None:
    if not value:
        return None if value is None else UNKNOWN_PEER
    address = ip_address_of(value[5:] if ascii_lower(value).startswith("ipv6:") else value)
    if address is None:
        raise CommandError(R501_SYNTAX)
    return str(address)
