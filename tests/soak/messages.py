"""The messages of a campaign: unique, of every size, hard to mistake and hard to cut unnoticed."""

import hashlib
import random
import re
from dataclasses import dataclass
from typing import NamedTuple

CUSTOMER_FIELD = b"X-Customer-ID: C-1\r\n"
MARK = re.compile(rb"^X-Soak: (\S+) ([0-9]+)\r\n", re.MULTILINE)
RECEIVED = re.compile(rb"Received:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")
HEAD_OCTETS = 65_536
_LINES = [b"", b".", b"..", b". leading", b"\xe4\xf6\xfc\x00\xff", b"From here", b"x" * 990]


class Composed(NamedTuple):
    """A message as it is sent, without dot-stuffing, and the digest of what is to arrive."""

    sent: bytes
    digest: str


def compose(message: str, attempt: int, *, size: int, customer: bool) -> Composed:
    """Build the message of an attempt: the same each time, and no other."""
    dice = random.Random(f"{message} {attempt}")
    lines = _LINES + [dice.randbytes(dice.randrange(1, 120)).hex().encode() for _ in range(30)]
    average = sum(map(len, lines)) / len(lines) + 2
    body = b"\r\n".join([*dice.choices(lines, k=max(1, int(size / average))), b"END", b""])
    mark = b"X-Soak: %s %d\r\n" % (message.encode(), attempt)
    fields = [b"From: <crm@shop.example>\r\n", b"Subject: soak\r\n", b"Message-ID: <%s>\r\n" % message.encode(), mark]
    arriving = b"".join(fields) + b"\r\n" + body
    if customer:
        fields.insert(dice.randrange(len(fields) + 1), CUSTOMER_FIELD)
    return Composed(b"".join(fields) + b"\r\n" + body, hashlib.sha256(arriving).hexdigest())


def stuffed(message: bytes) -> bytes:
    """The wire form of a message, without the final dot."""
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a message that was found says of itself, and the digest of all but the guard's trace field."""

    message: str
    attempt: int
    digest: str


class Reader:
    """Identifies a message that comes in pieces, and holds no more of it than its head."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._digest = hashlib.sha256()
        self._mark: re.Match[bytes] | None = None
        self._has_head = False

    def feed(self, octets: bytes | bytearray) -> None:
        if self._has_head:
            self._digest.update(octets)
            return
        self._head += octets
        if len(self._head) >= HEAD_OCTETS:
            self._read_head()

    def identity(self) -> Identity:
        """Return it, when all has come."""
        if not self._has_head:
            self._read_head()
        name, number = (self._mark[1].decode(), int(self._mark[2])) if self._mark else ("?", 0)
        return Identity(name, number, self._digest.hexdigest())

    def _read_head(self) -> None:
        self._has_head = True
        head = bytes(self._head)
        self._head.clear()
        self._mark = MARK.search(head)
        received = RECEIVED.match(head)
        self._digest.update(head[received.end() if received else 0 :])


def identify(message: bytes) -> Identity:
    """Identify a message that is there as a whole."""
    reader = Reader()
    reader.feed(message)
    return reader.identity()
