"""The message as bytes: dot-stuffing, line ends, and the few header fields that the guard reads, adds or takes out.

*Wire form* is what stands between the 354 and the final dot: CRLF lines, dot-stuffed (RFC 5321 4.5.2). It is relayed
as it came; the quarantine keeps the message unstuffed. Nothing here decodes or re-folds a message.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.header import decode_header, make_header
from email.utils import format_datetime
from typing import NamedTuple

from smtpguard.domain.application import Origin
from smtpguard.domain.standing import Customer, CustomerUnnamed, is_customer_reference

MAX_HEADER_OCTETS = 262_144
PURPOSE_HEADER = "X-Smtpguard-Purpose"
"""A field of the guard's own: whatever comes with it from outside is taken out."""
MAX_SUMMARY_CHARACTERS = 200
MAX_RAW_SUMMARY_OCTETS = 2000

# RFC 5322 2.2: a name of printable ASCII, a colon, a value folded over lines. White space before the colon is the
# obsolete form (4.5.8). The name is bounded so that a long line without a colon costs nothing.
_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n")
# What may be the beginning of a field, or of a line that continues one, if more follows.
_MAY_GO_ON = re.compile(rb"[ \t]|[!-9;-~]{1,200}[ \t]*(?::|\r?\Z)|\r?\Z")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n(\.?)")
_ATOM_OR_LITERAL = re.compile(r"[^A-Za-z0-9._:\[\]-]+")

Wire = bytes | bytearray


class HeaderTooBigError(ValueError):
    """The header section has more than MAX_HEADER_OCTETS octets, or goes on where it cannot be read."""


class Field(NamedTuple):
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


class WireScan:
    """What is counted in a wire form while it comes, however it is cut."""

    def __init__(self) -> None:
        self._crs = self._lfs = self._pairs = 0
        self._last = b"\r\n"  # a line begins
        self.stuffed_dots = 0
        """Octets that are not part of the message (RFC 1870 5)."""

    def feed(self, chunk: bytes) -> None:
        """Count what comes next."""
        seam = self._last + chunk[:2]
        self._crs += chunk.count(b"\r")
        self._lfs += chunk.count(b"\n")
        self._pairs += chunk.count(b"\r\n") + (seam[1:3] == b"\r\n")
        self.stuffed_dots += chunk.count(b"\r\n.") + seam.count(b"\r\n.")
        self._last = (self._last + chunk[-2:])[-2:]

    @property
    def is_at_line_start(self) -> bool:
        """Whether what came so far is empty or ends with CRLF."""
        return self._last == b"\r\n"

    @property
    def has_bare_line_end(self) -> bool:
        """Whether there is a CR or LF that is not part of a CRLF.

        A smarthost may take a bare one for a line end and so see another end of data, and another transaction, than
        the guard does (SMTP smuggling).
        """
        return self._crs != self._pairs or self._lfs != self._pairs


class DotRewriter:
    """Puts the lines of a message into wire form, or back, however they are cut."""

    def __init__(self, *, stuffs: bool) -> None:
        self._replacement = b"\r\n.." if stuffs else b"\r\n"
        self._last = b"\r\n"  # a line begins

    def rewrite(self, chunk: Wire) -> bytes:
        """Return what comes next in its other form."""
        joined = self._last + chunk
        self._last = joined[-2:]
        return joined.replace(b"\r\n.", self._replacement)[2:]


class LineFeedRewriter:
    """Makes a CRLF of each LF in a wire form that has no CR in front, however it is cut.

    A dot behind such an LF begins a line that nobody has stuffed, and is. A line that is nothing but a stuffed dot and
    such an LF would become the final dot: it is said to be ambiguous.
    """

    def __init__(self) -> None:
        self._last = b"\r\n"  # a line begins
        self._is_behind_bare = False
        self.is_ambiguous = False

    def rewrite(self, chunk: bytes) -> bytes:
        """Return what comes next, rewritten."""
        joined = self._last + chunk
        self.is_ambiguous = self.is_ambiguous or b"\r\n.\n" in joined
        begin = b""
        if chunk.startswith(b"\n") and self._last.endswith(b"\r"):
            begin = b"\n"
        elif chunk.startswith(b".") and self._is_behind_bare:
            begin = b".."
        self._last = joined[-3:]
        if chunk:
            self._is_behind_bare = joined.endswith(b"\n") and not joined.endswith(b"\r\n")
        return begin + _BARE_LINE_FEED.sub(rb"\r\n\1\1", chunk[min(len(begin), 1) :])


def stuff(message: bytes) -> bytes:
    """Return the wire form of a message that ends with CRLF or is empty."""
    return DotRewriter(stuffs=True).rewrite(message)


def unstuff(wire: Wire) -> bytes:
    """Return the message of a wire form."""
    return DotRewriter(stuffs=False).rewrite(wire)


def unstuffed(pieces: Iterable[Wire]) -> Iterator[bytes]:
    """Give the message of a wire form that comes in pieces."""
    return map(DotRewriter(stuffs=False).rewrite, pieces)


def find_header_end(wire: Wire, start: int = 0) -> int:
    """Return where the body begins, -1 where no empty line is found; there is none that ends before ``start``."""
    if wire[:2] == b"\r\n":
        return 2
    end = wire.find(b"\r\n\r\n", max(0, start - 3))
    return -1 if end < 0 else end + 4


def header_fields(wire: Wire, *, is_cut: bool = False) -> tuple[Field, ...]:
    """Read the header section; it ends before the first line that is no field. Raises HeaderTooBigError.

    ``is_cut``: more follows elsewhere. Then the header section must be seen to end here, so that no field is read
    short or taken out in part: what stands behind the last one is neither a field nor the continuation of one.
    """
    fields = tuple(_fields(wire))
    end = fields[-1].end if fields else 0
    if is_cut and wire.find(b"\r\n", end) < 0 and _MAY_GO_ON.match(wire, end):
        raise HeaderTooBigError
    return fields


def customer_of(fields: tuple[Field, ...], name: str) -> Customer:
    """Return the customer that the header names; an empty field names none, two different values are unclear."""
    wanted = name.lower()
    values = {field.value for field in fields if field.name == wanted} - {b""}
    if not values:
        return CustomerUnnamed.NONE
    value = values.pop().decode("ascii", "replace")
    if values or not is_customer_reference(value):
        return CustomerUnnamed.UNCLEAR
    return value


def take_out(wire: bytearray, fields: tuple[Field, ...], names: Collection[str]) -> None:
    """Remove each field of these names, in place; ``fields`` no longer fit the wire form afterwards."""
    unwanted = {name.lower() for name in names}
    for field in reversed(fields):
        if field.name in unwanted:
            del wire[field.start : field.end]


def value_of(fields: tuple[Field, ...], name: str) -> bytes:
    """Return the value of the first field of this name, ``b""`` where there is none."""
    return next((field.value for field in fields if field.name == name), b"")


def count_of(fields: tuple[Field, ...], name: str) -> int:
    """Return how many fields have this name."""
    return sum(field.name == name for field in fields)


def summarise(fields: tuple[Field, ...]) -> HeaderSummary:
    """Decode what a listing shows."""
    subject, sender, date, message_id = (
        readable(value_of(fields, name)) for name in ("subject", "from", "date", "message-id")
    )
    return HeaderSummary(subject, sender, date, message_id)


def received_field(origin: Origin, *, hostname: str, transaction_id: str, now: datetime) -> bytes:
    """Build the trace field of RFC 5321 4.4. It names no recipient: others would see it."""
    address = f"IPv6:{origin.peer}" if ":" in origin.peer else origin.peer
    tls = f"\t(using {origin.tls})\r\n" if origin.tls else ""
    text = (
        f"Received: from {_ATOM_OR_LITERAL.sub('?', origin.helo)[:255]} ([{address}])\r\n{tls}"
        f"\tby {hostname} (smtpguard) with {origin.protocol} id {transaction_id};\r\n"
        f"\t{format_datetime(now)}\r\n"
    )
    return text.encode("ascii")


def _fields(wire: Wire) -> Iterator[Field]:
    position = 0
    while match := _FIELD.match(wire, position):
        start, position = match.span()
        if position > MAX_HEADER_OCTETS:
            raise HeaderTooBigError
        name, value = match.groups()
        yield Field(name.decode("ascii").lower(), value.replace(b"\r\n", b"").strip(b" \t"), start, position)


def readable(value: bytes) -> str:
    """Decode a field value for people: encoded words decoded, nothing unprintable, cut."""
    text = value[:MAX_RAW_SUMMARY_OCTETS].decode("utf-8", "replace")
    with suppress(MessageError, LookupError, ValueError):  # a broken encoded word is shown as it came
        text = str(make_header(decode_header(text)))
    return "".join(character if character.isprintable() else "?" for character in text)[:MAX_SUMMARY_CHARACTERS]
