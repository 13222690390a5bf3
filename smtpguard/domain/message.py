"""The message as bytes: dot-stuffing, line ends, and the few header fields that the guard reads, adds or takes out.

*Wire form* is what stands between the 354 and the final dot: CRLF lines, dot-stuffed (RFC 5321 4.5.2). It is relayed
as it came; the quarantine keeps the message unstuffed. Nothing here decodes or re-folds a message.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.header import decode_header, make_header
from email.utils import format_datetime

from smtpguard.domain.standing import Customer, CustomerUnnamed, is_customer_reference

MAX_HEADER_OCTETS = 262_144
MAX_SUMMARY_CHARACTERS = 200
MAX_RAW_SUMMARY_OCTETS = 2000

# RFC 5322 2.2: a name of printable ASCII, a colon, a value folded over lines. White space before the colon is the
# obsolete form (4.5.8). The name is bounded so that a long line without a colon costs nothing.
_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n")
_ATOM_OR_LITERAL = re.compile(r"[^A-Za-z0-9._:\[\]-]+")

Wire = bytes | bytearray


class HeaderTooBigError(ValueError):
    """The header section has more than MAX_HEADER_OCTETS octets."""


@dataclass(frozen=True, slots=True)
class Field:
    """A header field: its name in lower case, its value as one line, and where it stands."""

    name: str
    value: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class HeaderSummary:
    """What a listing shows of a header: decoded, on one line each, cut."""

    subject: str
    sender: str
    date: str
    message_id: str


def has_bare_line_end(wire: Wire) -> bool:
    """Whether there is a CR or LF that is not part of a CRLF.

    A smarthost may take a bare one for a line end and so see another end of data, and another transaction, than the
    guard does (SMTP smuggling).
    """
    pairs = wire.count(b"\r\n")
    return wire.count(b"\r") != pairs or wire.count(b"\n") != pairs


def stuff(message: bytes) -> bytes:
    """Return the wire form of a message that ends with CRLF or is empty."""
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:]


def unstuff(wire: Wire) -> bytes:
    """Return the message of a wire form."""
    return bytes((b"\r\n" + wire).replace(b"\r\n.", b"\r\n")[2:])


def header_fields(wire: Wire) -> tuple[Field, ...]:
    """Read the header section; it ends before the first line that is no field. Raises HeaderTooBigError."""
    return tuple(_fields(wire))


def customer_of(fields: tuple[Field, ...], name: str) -> Customer:
    """Return the customer that the header names; an empty field names none, two different values are unclear."""
    values = {field.value for field in fields if field.name == name.lower()} - {b""}
    if not values:
        return CustomerUnnamed.NONE
    value = values.pop().decode("ascii", "replace")
    if values or not is_customer_reference(value):
        return CustomerUnnamed.UNCLEAR
    return value


def take_out(wire: bytearray, fields: tuple[Field, ...], name: str) -> None:
    """Remove each field of this name, in place; ``fields`` no longer fit the wire form afterwards."""
    for field in reversed(fields):
        if field.name == name.lower():
            del wire[field.start : field.end]


def value_of(fields: tuple[Field, ...], name: str) -> bytes:
    """Return the value of the first field of this name, ``b""`` where there is none."""
    return next((field.value for field in fields if field.name == name), b"")


def summarise(fields: tuple[Field, ...]) -> HeaderSummary:
    """Decode what a listing shows."""
    subject, sender, date, message_id = (
        readable(value_of(fields, name)) for name in ("subject", "from", "date", "message-id")
    )
    return HeaderSummary(subject, sender, date, message_id)


def received_field(*, helo: str, peer: str, hostname: str, protocol: str, transaction_id: str, now: datetime) -> bytes:
    """Build the trace field of RFC 5321 4.4. It names no recipient: others would see it."""
    address = f"IPv6:{peer}" if ":" in peer else peer
    text = (
        f"Received: from {_ATOM_OR_LITERAL.sub('?', helo)[:255]} ([{address}])\r\n"
        f"\tby {hostname} (smtpguard) with {protocol} id {transaction_id};\r\n"
        f"\t{format_datetime(now)}\r\n"
    )
    return text.encode("ascii")


def _fields(wire: Wire) -> Iterator[Field]:
    position = 0
    while match := _FIELD.match(wire, position):
        position = match.end()
        if position > MAX_HEADER_OCTETS:
            raise HeaderTooBigError
        value = match[2].replace(b"\r\n", b"").strip(b" \t")
        yield Field(match[1].decode("ascii").lower(), value, match.start(), position)


def readable(value: bytes) -> str:
    """Decode a field value for people: encoded words decoded, nothing unprintable, cut."""
    text = value[:MAX_RAW_SUMMARY_OCTETS].decode("utf-8", "replace")
    with suppress(MessageError, LookupError, ValueError):  # a broken encoded word is shown as it came
        text = str(make_header(decode_header(text)))
    return "".join(character if character.isprintable() else "?" for character in text)[:MAX_SUMMARY_CHARACTERS]
