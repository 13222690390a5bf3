"""The message as bytes: dot-stuffing, line ends, and the few header fields that the guard reads, adds or takes out.

*Wire form* is what stands between the 354 and the final dot: CRLF lines, dot-stuffed (RFC 5321 4.5.2). It is relayed
as it came; the quarantine keeps the message unstuffed. Nothing here decodes or re-folds a message.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import MessageError
from email.header import decode_header, make_header
from email.utils import format_datetime
from functools import lru_cache
from operator import itemgetter
from typing import Final

from smtpguard.domain.application import Origin
from smtpguard.domain.standing import Customer, CustomerUnnamed, is_customer_reference

MAX_HEADER_OCTETS = 262_144
PURPOSE_HEADER = "X-Smtpguard-Purpose"
"""A field of the guard's own: an application marks its verification mail with it. It is taken out in any case."""
VERIFICATION_PURPOSE = b"verification"
MAX_SUMMARY_CHARACTERS = 200
MAX_RAW_SUMMARY_OCTETS = 2000
PIECE_OCTETS = 32_768
"""What is looked at in one go: copies of so little stay in the cache of the processor, and in the allocator's hands."""
REMEMBERED_PEERS = 256
"""For how many hosts the part of ``Received:`` that names them is kept."""

# RFC 5322 2.2: a name of printable ASCII, a colon, a value folded over lines. White space before the colon is the
# obsolete form (4.5.8). The name is bounded so that a long line without a colon costs nothing. Any line may have a
# stuffed dot in front, also one that need not: whoever gets the message sees it without.
_FIRST_FIELD = re.compile(rb"\.?+[!-9;-~]{1,200}[ \t]*:[^\r\n]*\r\n")
# The end of the last line of the header section: what follows neither begins a field nor continues one.
_LAST_LINE_END = re.compile(rb"\r\n(?!\.?+(?:[ \t]|[!-9;-~]{1,200}[ \t]*:))")
_BARE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")
# What may be the beginning of a field, or of a line that continues one, if more follows.
_MAY_GO_ON = re.compile(rb"\.?+(?:[ \t]|[!-9;-~]{1,200}[ \t]*(?::|\r?\Z)|\r?\Z)")
# What stands behind the name of a field, where the header section has been found.
_VALUE = re.compile(rb"[ \t]*:([^\r]*(?:\r\n\.?+[ \t][^\r]*)*)\r\n")
_FOLD = re.compile(rb"\r\n\.?")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n(\.?)")
_NO_CUSTOMER: Final = CustomerUnnamed.NONE  # looked at for each message: see domain/decision.py
_ATOM_OR_LITERAL = re.compile(r"[^A-Za-z0-9._:\[\]-]+")

Wire = bytes | bytearray


class HeaderTooBigError(ValueError):
    """The header section has more than MAX_HEADER_OCTETS octets, or goes on where it cannot be read."""


class Header:
    """The header section of a message, to be asked for the few fields that the guard reads."""

    __slots__ = ("_found", "_lines", "_section")

    def __init__(self, section: bytes) -> None:
        self._section = section
        # Every field begins behind a line end here, and in lower case: an octet of it stands one place further on.
        self._lines = b"\n" + section.lower()
        self._found: dict[str, list[tuple[int, re.Match[bytes]]]] = {}

    def __len__(self) -> int:
        return len(self._section)

    def values(self, name: str) -> list[bytes]:
        """Return the value of each field of this name, as one line each."""
        fields = self._fields(name)
        return [self._value(match) for _, match in fields] if fields else []

    def value(self, name: str) -> bytes:
        """Return the value of the first field of this name, ``b""`` where there is none."""
        fields = self._fields(name)
        return self._value(fields[0][1]) if fields else b""

    def count(self, name: str) -> int:
        """Return how many fields have this name."""
        return len(self._fields(name))

    def spans(self, name: str) -> list[tuple[int, int]]:
        """Return where each field of this name stands."""
        fields = self._fields(name)
        return [(start, match.end() - 1) for start, match in fields] if fields else []

    def _value(self, match: re.Match[bytes]) -> bytes:
        return _FOLD.sub(b"", self._section[match.start(1) - 1 : match.end(1) - 1]).strip(b" \t")

    def _fields(self, name: str) -> list[tuple[int, re.Match[bytes]]]:
        """Find where each field of this name begins, and what stands behind the name."""
        found = self._found.get(name)
        if found is not None:
            return found
        found = self._found[name] = []
        octets, beginnings = _beginnings(name)
        if self._lines.find(octets) < 0:  # `in` would take the name for a number first, and make an error of that
            return found
        for beginning in beginnings:
            start = self._lines.find(beginning)
            while start >= 0:
                if match := _VALUE.match(self._lines, start + len(beginning)):
                    found.append((start, match))
                start = self._lines.find(beginning, start + 1)
        found.sort(key=itemgetter(0))
        return found


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
        self._open = b"\r\n"  # a line begins
        self._has_bare = False
        self.stuffed_dots = 0
        """Octets that are not part of the message (RFC 1870 5)."""

    def feed(self, chunk: bytes) -> None:
        """Count what comes next."""
        for start in range(0, len(chunk), PIECE_OCTETS):
            self._feed(chunk[start : start + PIECE_OCTETS])

    def _feed(self, piece: bytes) -> None:
        joined = self._open + piece
        if joined.rfind(b"\r\n.") >= 0:  # mostly there is none, which rfind sees in half the time
            self.stuffed_dots += joined.count(b"\r\n.")
        closed = joined.removesuffix(b"\r")  # what comes next says whether that one is bare
        # Any other way to see it takes twice as long, or longer.
        if closed.replace(b"\r", b"").replace(b"\n", b"\r\n") != closed:
            self._has_bare = True
        if joined.endswith(b"\r\n"):
            self._open = b"\r\n"
        else:
            self._open = b"\r" if joined.endswith(b"\r") else b""

    @property
    def is_at_line_start(self) -> bool:
        """Whether what came so far is empty or ends with CRLF."""
        return self._open == b"\r\n"

    @property
    def has_bare_line_end(self) -> bool:
        """Whether there is a CR or LF that is not part of a CRLF.

        A smarthost may take a bare one for a line end and so see another end of data, and another transaction, than
        the guard does (SMTP smuggling).
        """
        return self._has_bare or self._open == b"\r"


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


def read_header(wire: Wire, *, is_cut: bool = False) -> Header:
    """Read the header section; it ends before the first line that is no field. Raises HeaderTooBigError.

    ``is_cut``: more follows elsewhere. Then the header section must be seen to end here, so that no field is read
    short or taken out in part: what stands behind the last one is neither a field nor the continuation of one.
    """
    section = _section(wire)
    end = len(section)
    if end > MAX_HEADER_OCTETS:
        raise HeaderTooBigError
    if is_cut and wire.find(b"\r\n", end) < 0 and _MAY_GO_ON.match(wire, end):
        raise HeaderTooBigError
    return Header(section)


def customer_of(header: Header, name: str) -> Customer:
    """Return the customer that the header names; an empty field names none, two different values are unclear."""
    different = set(header.values(name))
    different.discard(b"")
    if not different:
        return _NO_CUSTOMER
    value = different.pop().decode("ascii", "replace")
    if different or not is_customer_reference(value):
        return CustomerUnnamed.UNCLEAR
    return value


def is_verification_mark(purposes: Sequence[bytes]) -> bool:
    """Whether these values of the purpose field mark verification mail: exactly one does, and nothing like one."""
    return len(purposes) == 1 and purposes[0].lower() == VERIFICATION_PURPOSE


def take_out(wire: bytearray, header: Header, names: Collection[str]) -> None:
    """Remove each field of these names, in place; ``header`` no longer fits the wire form afterwards."""
    spans = {span for name in names for span in header.spans(name)}  # both names may be the same
    if not spans:
        return
    kept, done = bytearray(), 0
    for start, end in sorted(spans):
        kept += wire[done:start]
        done = end
    wire[:done] = kept  # at once: what follows may be long, and is moved each time


def summarise(header: Header) -> HeaderSummary:
    """Decode what a listing shows."""
    subject, sender, date, message_id = (
        readable(header.value(name)) for name in ("subject", "from", "date", "message-id")
    )
    return HeaderSummary(subject, sender, date, message_id)


def received_field(origin: Origin, *, hostname: str, transaction_id: str, now: datetime) -> bytes:
    """Build the trace field of RFC 5321 4.4. It names no recipient: others would see it."""
    text = (
        f"{_received_from(origin.helo, origin.peer, origin.tls)}"
        f"\tby {hostname} (smtpguard) with {origin.protocol} id {transaction_id};\r\n"
        f"\t{_date(int(now.timestamp()))}\r\n"
    )
    return text.encode("ascii")


def readable(value: bytes) -> str:
    """Decode a field value for people: encoded words decoded, nothing unprintable, cut."""
    text = value[:MAX_RAW_SUMMARY_OCTETS].decode("utf-8", "replace")
    if not text.isascii() or not text.isprintable() or "=?" in text:  # it is shown as it came, otherwise
        with suppress(MessageError, LookupError, ValueError):  # a broken encoded word is shown as it came
            text = str(make_header(decode_header(text)))
        text = "".join(character if character.isprintable() else "?" for character in text)
    return text[:MAX_SUMMARY_CHARACTERS]


@lru_cache(REMEMBERED_PEERS)
def _received_from(helo: str, peer: str, tls: str) -> str:
    address = f"IPv6:{peer}" if ":" in peer else peer
    using = f"\t(using {tls})\r\n" if tls else ""
    return f"Received: from {_ATOM_OR_LITERAL.sub('?', helo)[:255]} ([{address}])\r\n{using}"


@lru_cache(2)  # it changes once a second, and takes longer to write than all the rest
def _date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def _section(wire: Wire) -> bytes:
    if not _FIRST_FIELD.match(wire):
        return b""
    last = _LAST_LINE_END.search(wire)
    section = bytes(wire[: last.end() if last else wire.rfind(b"\r\n") + 2])
    lines = section.count(b"\r\n")
    if section.count(b"\r") == lines == section.count(b"\n"):
        return section
    clean = _BARE_LINE_END.split(section, 1)[0]  # a line with a bare one is no field, nor does it continue one
    return clean[: clean.rfind(b"\r\n") + 2]


@lru_cache
def _beginnings(name: str) -> tuple[bytes, tuple[bytes, bytes]]:
    """The name, and how its field begins with the line end before it: as it is, or with a stuffed dot."""
    octets = name.lower().encode("ascii")
    return octets, (b"\n" + octets, b"\n." + octets)
