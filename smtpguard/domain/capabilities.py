"""What a mail server offers, as far as an application has to know it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The extensions in a reply to EHLO that concern a message and its envelope."""

    size: int | None
    """Octets of the largest message (RFC 1870); None: no limit is known."""
    eight_bit_mime: bool
    """RFC 6152."""
    smtputf8: bool
    """RFC 6531."""
    dsn: bool
    """RFC 3461."""
