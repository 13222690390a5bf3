"""Invitations as a recipient meets them: settings that allow them, the message that came, and its link."""

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from smtpguard.settings import Settings
from tests.support.guard import make_settings
from tests.support.scripted_smarthost import Transaction

PUBLIC_URL = "https://check.shop.example"
ORGANISATION = "Muster & Söhne AG"
SENDER = "invitations@shop.example"
VERIFICATION = {"organisation": ORGANISATION, "sender": SENDER}
INVITING: dict[str, Any] = {"verification": VERIFICATION, "web": {"public_url": PUBLIC_URL}}
"""The sections of settings with which there can be invitations."""
_LINK = re.compile(rf"{re.escape(PUBLIC_URL)}/([cd])/([A-Za-z0-9_-]+)")


def inviting_settings(
    store_url: str, smarthost_port: int, *, verification: dict[str, Any] | None = None, **sections: Any
) -> Settings:
    """Settings with which there can be invitations."""
    return make_settings(
        store_url,
        smarthost_port,
        verification=VERIFICATION | (verification or {}),
        web={"public_url": PUBLIC_URL},
        **sections,
    )


def parsed(sent: Transaction) -> EmailMessage:
    """The message as a reader of mail understands it."""
    message = message_from_bytes(sent.message, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def text_of(sent: Transaction, kind: str = "plain") -> str:
    """One of its parts, decoded."""
    part = parsed(sent).get_body((kind,))
    assert part is not None
    return part.get_content()


def token_of(sent: Transaction) -> str:
    """The token of the link in the message."""
    links = {match.groups() for match in _LINK.finditer(text_of(sent))}
    [(_, token)] = links
    return token
