"""The SASL exchanges of AUTH (RFC 4954): PLAIN (RFC 4616), and LOGIN, which many applications still speak.

They end in a name and a password. Whether these are right is not looked at here.
"""

from binascii import a2b_base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from smtpguard.domain.mailbox import ascii_lower
from smtpguard.domain.reply import (
    R501_AUTH_CANCELLED,
    R501_AUTH_UNREADABLE,
    R504_UNKNOWN_MECHANISM,
    R535_LOGIN_FAILED,
)
from smtpguard.smtp.commands import CommandError

Ask = Callable[[bytes], Awaitable[str]]
"""Sends a challenge, and gives the line that the application answers, without its line end."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an application says it is, and what is to prove it."""

    username: str
    password: str = field(repr=False)


async def exchange(mechanism: str, initial: str | None, ask: Ask) -> Credentials:
    """Carry out the exchange; ``initial`` is the initial response as it stands in the AUTH command, if one does.

    Raises CommandError.
    """
    match ascii_lower(mechanism):
        case "plain":
            return _plain(await _first(initial, b"", ask))
        case "login":
            # LOGIN has no initial response by its draft, yet common clients send the name so (.NET among them).
            username = _text(await _first(initial, b"Username:", ask))
            return _credentials(username, _text(_decoded(await ask(b"Password:"))))
        case _:
            raise CommandError(R504_UNKNOWN_MECHANISM)


async def _first(initial: str | None, challenge: bytes, ask: Ask) -> bytes:
    if initial is None:
        return _decoded(await ask(challenge))
    return b"" if initial == "=" else _decoded(initial)  # RFC 4954 4: "=" is an empty initial response


def _decoded(line: str) -> bytes:
    if line == "*":
        raise CommandError(R501_AUTH_CANCELLED)
    try:
        return a2b_base64(line, strict_mode=True)
    except ValueError:  # binascii.Error is one
        raise CommandError(R501_AUTH_UNREADABLE) from None


def _plain(message: bytes) -> Credentials:
    """RFC 4616 2: [authzid] NUL authcid NUL passwd. Nobody may act for another here."""
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise CommandError(R501_AUTH_UNREADABLE)
    authzid, authcid, password = map(_text, parts)
    if authzid not in {"", authcid}:
        raise CommandError(R535_LOGIN_FAILED)
    return _credentials(authcid, password)


def _credentials(username: str, password: str) -> Credentials:
    if not username or not password:  # RFC 4616 2: neither may be empty
        raise CommandError(R535_LOGIN_FAILED)
    return Credentials(username, password)


def _text(octets: bytes) -> str:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(R501_AUTH_UNREADABLE) from None
    if "\0" in text:
        raise CommandError(R501_AUTH_UNREADABLE)
    return text
