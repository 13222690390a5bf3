"""Mailboxes out of the store."""

from smtpguard.domain.mailbox import Mailbox


def stored_mailbox(text: str, lookup_key: str) -> Mailbox:
    """Put a mailbox together as it was once parsed: a stricter parser of a later version hides nothing that waits."""
    _, at_sign, domain = lookup_key.rpartition("@")
    return Mailbox(text, lookup_key=lookup_key, domain=domain if at_sign else "")
