"""The one table of replies: every line that an application hears is built here.

A name begins with its reply code (RFC 5321 4.2); the enhanced status code is that of RFC 3463. The texts are for the
people behind an application: plain, and without a word about the inside of the guard.
"""

import re
from binascii import b2a_base64
from dataclasses import dataclass, field

MAX_TEXT_CHARACTERS = 400  # RFC 5321 4.5.3.1.5: a reply line has 512 octets, code and CRLF included

OWNER_CHANGED = frozenset({"5.7.17", "5.7.18"})

_NOT_PRINTABLE = re.compile(r"[^ -~]+")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply: code, enhanced status code ("" where there is none), and a text of one or more lines."""

    code: int
    enhanced: str
    text: str
    line: str = field(init=False, repr=False, compare=False)
    """All of it; built once, like the next two, since most replies are constants."""
    wire: bytes = field(init=False, repr=False, compare=False)
    """The line as it goes over the wire."""
    is_positive: bool = field(init=False, repr=False, compare=False)
    """Whether it is a 2yz."""

    def __post_init__(self) -> None:
        line = " ".join(filter(None, (str(self.code), self.enhanced, self.text)))
        object.__setattr__(self, "line", line)
        object.__setattr__(self, "wire", f"{line}\r\n".encode("ascii"))
        object.__setattr__(self, "is_positive", 200 <= self.code < 300)

    @property
    def is_transient(self) -> bool:
        """Whether it is a 4yz: the application may try again."""
        return 400 <= self.code < 500

    @property
    def is_protocol_error(self) -> bool:
        """Whether it says that a command was wrong or out of place, whatever it was about."""
        return 500 <= self.code <= 504 and self.enhanced.startswith("5.5.")

    @property
    def says_owner_changed(self) -> bool:
        """Whether it says that the mailbox, or its domain, belongs to somebody else by now (RFC 7293)."""
        return self.code >= 500 and self.enhanced in OWNER_CHANGED

    def with_text(self, text: str) -> "Reply":
        """Return the same reply with other words, cleaned of what does not belong in a reply."""
        return Reply(self.code, self.enhanced, clean_text(text))

    def __str__(self) -> str:
        return self.line


def peer_reply(code: int, lines: list[str]) -> Reply:
    """Build a reply out of what a peer said: one line of printable ASCII, its enhanced code kept if it fits.

    RFC 3463 2: the class of the enhanced code must be that of the reply code; one that is not is treated as text.
    """
    said = [line for line in map(str.strip, lines) if line]
    match = _ENHANCED.match(said[0]) if said else None
    if match is None or match[1][0] != str(code)[0]:
        return Reply(code, "", clean_text(" ".join(said)))
    enhanced = match[1]
    bare = [f"{line} ".removeprefix(f"{enhanced} ").strip() for line in said]
    return Reply(code, enhanced, clean_text(" ".join(bare)))


def clean_text(text: str) -> str:
    """Replace every run of characters that are not printable ASCII by one ``?``, and cut to one reply line."""
    if not (text.isascii() and text.isprintable()):
        text = _NOT_PRINTABLE.sub("?", text)
    return text.strip()[:MAX_TEXT_CHARACTERS].rstrip()


def challenge(octets: bytes) -> bytes:
    """Return the line of a SASL challenge (RFC 4954 4): its space is there even where nothing follows."""
    return b"334 " + b2a_base64(octets, newline=False) + b"\r\n"


R220_READY = Reply(220, "", "ESMTP smtpguard")
R220_TLS = Reply(220, "2.0.0", "Ready to start TLS")
R221_BYE = Reply(221, "2.0.0", "Bye")
R235_LOGGED_IN = Reply(235, "2.7.0", "Authentication succeeded")
R250_OK = Reply(250, "2.0.0", "OK")
R250_SENDER_OK = Reply(250, "2.1.0", "Sender OK")
R250_RECIPIENT_OK = Reply(250, "2.1.5", "Recipient OK")
R250_CHUNK = Reply(250, "2.0.0", "Chunk received")
R252_CANNOT_VERIFY = Reply(252, "2.1.5", "Cannot VRFY user, but will take a message for it")
R354_SEND = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
R421_SHUTTING_DOWN = Reply(421, "4.3.2", "Service is closing, try again later")
R421_ABORTED = Reply(421, "4.3.0", "Temporary failure, closing")
R421_IDLE = Reply(421, "4.4.2", "Idle for too long, closing")
R421_TOO_SLOW = Reply(421, "4.4.2", "The message comes too slowly, closing")
R421_TOO_OLD = Reply(421, "4.4.2", "The session is too old, connect again")
R421_TOO_MANY_SESSIONS = Reply(421, "4.7.0", "Too many sessions, try again later")
R421_TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands without a message, closing")
R421_TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing")
R421_TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins, closing")
R421_PIPELINED_TLS = Reply(421, "4.7.0", "Nothing may follow STARTTLS before its reply, closing")
R450_TOO_FAST = Reply(450, "4.7.1", "Too many messages in a minute, try again later")
R451_ABORTED = Reply(451, "4.3.0", "Temporary failure, try again later")
R451_STORE_UNAVAILABLE = Reply(451, "4.3.0", "Recipients cannot be checked now, try again later")
R451_SMARTHOST_UNAVAILABLE = Reply(451, "4.4.1", "The mail server cannot be reached now, try again later")
R451_SMARTHOST_LOST = Reply(451, "4.4.2", "The mail server did not confirm the message, try again later")
R452_STORE_FULL = Reply(452, "4.3.1", "No room to keep the message now, try again later")
R452_TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients in one transaction")
R454_LOGINS_BUSY = Reply(454, "4.7.0", "Logins cannot be checked now, try again later")
R500_UNKNOWN_COMMAND = Reply(500, "5.5.1", "Command not recognised")
R500_LINE_TOO_LONG = Reply(500, "5.5.2", "Command line too long")
R500_BAD_SYNTAX = Reply(500, "5.5.2", "Error: bad syntax")
R500_AUTH_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
R501_SYNTAX = Reply(501, "5.5.4", "Syntax error in parameters or arguments")
R501_BAD_SENDER = Reply(501, "5.1.7", "Bad sender address syntax")
R501_BAD_RECIPIENT = Reply(501, "5.1.3", "Bad recipient address syntax")
R501_AUTH_CANCELLED = Reply(501, "5.7.0", "Authentication was cancelled")
R501_AUTH_UNREADABLE = Reply(501, "5.5.2", "Cannot decode the authentication response")
R502_NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
R503_BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands")
R503_EHLO_FIRST = Reply(503, "5.5.1", "EHLO or HELO has to come first")
R504_UNKNOWN_MECHANISM = Reply(504, "5.5.4", "Authentication mechanism not recognised")
R530_TLS_FIRST = Reply(530, "5.7.0", "STARTTLS has to come first")
R530_AUTH_FIRST = Reply(530, "5.7.0", "Authentication is required")
R535_LOGIN_FAILED = Reply(535, "5.7.8", "User name or password is wrong")
R538_TLS_FOR_AUTH = Reply(538, "5.7.11", "Encryption is required to authenticate")
R550_BARE_LINE_END = Reply(550, "5.6.0", "The message has a CR or LF that is not part of a CRLF")
R550_NOT_VERIFIED = Reply(550, "5.7.1", "The recipient address is not verified")
R550_FLAGGED = Reply(550, "5.7.1", "Mail to the recipient address is stopped")
R550_NO_SMTPUTF8 = Reply(550, "5.6.7", "The mail server behind takes no SMTPUTF8")
R550_SENDER_NOT_ALLOWED = Reply(550, "5.7.1", "This application may not send as this address")
R550_XCLIENT_NOT_ALLOWED = Reply(550, "5.7.0", "This host may not use XCLIENT")
R552_TOO_BIG = Reply(552, "5.3.4", "The message is too big")
R553_BAD_SENDER = Reply(553, "5.1.7", "The sender address is not valid")
R553_BAD_RECIPIENT = Reply(553, "5.1.3", "The recipient address is not valid")
R553_NON_ASCII = Reply(553, "5.6.7", "A non-ASCII address needs the parameter SMTPUTF8")
R554_LOOP = Reply(554, "5.4.6", "The message has been through too many mail servers: it goes in circles")
R554_NO_VALID_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
R554_NO_8BITMIME = Reply(554, "5.6.3", "The mail server behind takes no 8BITMIME")
R554_NOT_ALLOWED = Reply(554, "5.7.1", "This host may not submit mail here")
R555_UNKNOWN_PARAMETER = Reply(555, "5.5.4", "MAIL or RCPT parameter not recognised")

_DEFAULT_ENHANCED = {
    221: "2.0.0",
    250: "2.0.0",
    252: "2.1.5",
    421: "4.3.0",
    454: "4.7.0",
    500: "5.5.2",
    501: "5.5.4",
    502: "5.5.1",
    503: "5.5.1",
    504: "5.5.4",
    554: "5.5.0",
}


def complete_reply(line: str) -> Reply:
    """Make a reply out of a single line that aiosmtpd wrote, with an enhanced code where RFC 2034 wants one."""
    reply = peer_reply(int(line[:3]), [line[4:]])
    return reply if reply.enhanced else Reply(reply.code, _DEFAULT_ENHANCED.get(reply.code, ""), reply.text)
