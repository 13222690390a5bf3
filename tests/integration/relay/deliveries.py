"""What the tests of the relay send, and how."""

from collections.abc import AsyncIterator, Sequence

from smtpguard.domain.envelope import NULL_REVERSE_PATH, ForwardPath, MailParameters, ReversePath
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.reply import Reply
from smtpguard.relay.smarthost import Smarthost, SmarthostTransaction

APP = parse_mailbox("app@corp.test")
ALICE, BOB, CAROL = (ForwardPath(parse_mailbox(f"{name}@x.test")) for name in ("alice", "bob", "carol"))
WIRE = b"Subject: hi\r\n\r\nYour invoice.\r\n..\r\n"
NO_PIPELINING = ("SIZE 52428800", "8BITMIME")

Octets = bytes | bytearray | memoryview


async def chunks(*pieces: Octets) -> AsyncIterator[Octets]:
    """Give the pieces of a body one by one."""
    for piece in pieces:
        yield piece


def begin(
    smarthost: Smarthost, *, reverse_path: ReversePath = APP, size: int | None = None, **parameters: object
) -> SmarthostTransaction:
    return smarthost.begin(reverse_path, MailParameters(**parameters), size=size)


async def deliver(smarthost: Smarthost, recipients: Sequence[ForwardPath] = (ALICE,), wire: bytes = WIRE) -> Reply:
    """Send one message whose recipients are all accepted; return the reply to the final dot."""
    transaction = begin(smarthost)
    replies = await transaction.rcpt(recipients)
    assert all(reply.is_positive for reply in replies), replies
    go_ahead = await transaction.send_body(chunks(wire))
    assert go_ahead.code == 354
    return await transaction.finish()


__all__ = ["ALICE", "APP", "BOB", "CAROL", "NO_PIPELINING", "NULL_REVERSE_PATH", "WIRE", "begin", "chunks", "deliver"]
