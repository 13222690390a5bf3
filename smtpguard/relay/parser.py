"""The strict parser of SMTP replies (RFC 5321 4.2): octets go in, replies come out, without any I/O.

The replies are the same however the octets are cut. Whatever is not a reply raises ReplySyntaxError; nothing that
follows it can be trusted, because only by counting is it known which reply answers which command.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from smtpguard.domain.reply import Reply, clean_text, peer_reply

MAX_LINE_OCTETS = 2048  # four times what RFC 5321 4.5.3.1.5 allows, CRLF included: some servers are talkative
MAX_LINES = 100  # no EHLO reply comes near it

FREQUENT = 64
"""How many different replies are remembered. A mail server says the same few things all day."""

# What comes nearly always: replies of one line of printable ASCII each, all of them whole.
_USUAL = re.compile(rb"(?:[2-5][0-9]{2} [ -~]*\r\n)+")
# The text may be missing altogether (RFC 5321 4.2.1). A CR or LF that is not part of the CRLF matches nowhere.
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])([^\r]*))?\r")


class ReplySyntaxError(ValueError):
    """What the peer said is no SMTP reply; the message is printable ASCII."""


@dataclass(frozen=True)
class PeerReply:
    """One reply as it came: its code, and the text of each line with every octet as one character."""

    code: int
    lines: tuple[str, ...]

    @cached_property
    def cleaned(self) -> Reply:
        """The reply as it can be passed on and logged."""
        return peer_reply(self.code, list(self.lines))


class ReplyParser:
    """Parses one stream of replies."""

    def __init__(self) -> None:
        self._rest = b""
        self._code = b""
        self._lines: list[str] = []
        self.is_mid_reply = False
        """Whether a reply has begun and not ended."""

    def feed(self, data: bytes) -> Iterable[PeerReply]:
        """Give each reply that ends in these octets; raise ReplySyntaxError where they cease to be replies."""
        if len(data) <= MAX_LINE_OCTETS and not self.is_mid_reply and (replies := _usual_replies(data)):
            return replies
        return self._feed(data)

    def _feed(self, data: bytes) -> Iterator[PeerReply]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._ends_reply(line):
                yield self._reply()
        self.is_mid_reply = bool(self._rest or self._lines)
        if len(self._rest) >= MAX_LINE_OCTETS:
            raise ReplySyntaxError(_too_long(self._rest))

    def _ends_reply(self, line: bytes) -> bool:
        """Add a line, which comes without its LF, and tell whether it is the last one of a reply."""
        if len(line) >= MAX_LINE_OCTETS:
            raise ReplySyntaxError(_too_long(line))
        match = _LINE.fullmatch(line)
        if match is None or (self._lines and match[1] != self._code):
            raise ReplySyntaxError(f"not an SMTP reply: {_excerpt(line)}")
        self._code = match[1]
        self._lines.append((match[3] or b"").decode("latin-1"))
        if match[2] != b"-":
            return True
        if len(self._lines) >= MAX_LINES:
            raise ReplySyntaxError(f"a reply of more than {MAX_LINES} lines: {_excerpt(line)}")
        return False

    def _reply(self) -> PeerReply:
        reply = PeerReply(int(self._code), tuple(self._lines))
        self._lines.clear()
        return reply


@lru_cache(FREQUENT)
def _usual_replies(data: bytes) -> tuple[PeerReply, ...]:
    """Return the replies if the octets are what comes nearly always, else none."""
    if not _USUAL.fullmatch(data):
        return ()
    *lines, _ = data.decode("ascii").split("\r\n")
    return tuple(PeerReply(int(line[:3]), (line[4:],)) for line in lines)


def _too_long(line: bytes) -> str:
    return f"a reply line of more than {MAX_LINE_OCTETS} octets: {_excerpt(line)}"


def _excerpt(line: bytes) -> str:
    return repr(clean_text(line[:60].decode("latin-1").removesuffix("\r")))
