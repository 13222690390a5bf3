"""The header of a message on its way through: what it must not be like, and the only changes to a message."""

from smtpguard.domain.message import PURPOSE_HEADER, Header, HeaderTooBigError, read_header, take_out
from smtpguard.domain.reply import R550_BARE_LINE_END, R552_TOO_BIG, R554_LOOP
from smtpguard.service.record import Ended, Outcome
from smtpguard.spool import WireMessage

MAX_RECEIVED_FIELDS = 50
"""A message with as many has gone in circles (RFC 5321 6.3)."""


def checked_header(message: WireMessage) -> Header:
    """Read the header of a message that may go on. Raises Ended."""
    if message.has_bare_line_end:
        raise Ended(R550_BARE_LINE_END, Outcome.REFUSED)
    try:
        header = read_header(message.head, is_cut=message.is_cut)
    except HeaderTooBigError:
        raise Ended(R552_TOO_BIG.with_text("The message header is too big"), Outcome.REFUSED) from None
    if header.count("received") >= MAX_RECEIVED_FIELDS:
        raise Ended(R554_LOOP, Outcome.REFUSED)
    return header


def change_header(message: WireMessage, header: Header, *, customer_header: str, received: bytes) -> None:
    """Take out what is for the guard alone, and put ``Received:`` in front."""
    take_out(message.head, header, (customer_header, PURPOSE_HEADER))
    message.head[0:0] = received
