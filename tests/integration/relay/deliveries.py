"""What the tests of the relay send, and how."""

from collections.abc import Sequence

from smtpguard.domain.envelope import NULL_REVERSE_PATH, Body, MailParameters, ReversePath
from smtpguard.domain.mailbox import Mailbox, parse_mailbox
from smtpguard.domain.reply import Reply
from smtpguard.relay.smarthost import Smarthost, SmarthostTransaction

APP = parse_mailbox("app@corp.test")
ALICE, BOB, CAROL = (parse_mailbox(f"{name}@x.test") for name in ("alice", "bob", "carol"))
WIRE = b"Subject: hi\r\n\r\nYour invoice.\r\n..\r\n"
NO_PIPELINING = ("SIZE 52428800", "8BITMIME")


def begin(
    smarthost: Smarthost, *, reverse_path: ReversePath = APP, body: Body | None = None, size: int | None = None
) -> SmarthostTransaction:
    return smarthost.begin(reverse_path, MailParameters(body=body), size=size)


async def deliver(smarthost: Smarthost, recipients: Sequence[Mailbox] = (ALICE,), wire: bytes = WIRE) -> Reply:
    """Send one message whose recipients are all accepted; return the reply to the final dot."""
    transaction = begin(smarthost)
    replies = await transaction.rcpt(recipients)
    assert all(reply.is_positive for reply in replies), replies
    go_ahead = await transaction.send_body(wire)
    assert go_ahead.code == 354
    return await transaction.finish()


__all__ = ["ALICE", "APP", "BOB", "CAROL", "NO_PIPELINING", "NULL_REVERSE_PATH", "WIRE", "begin", "deliver"]
