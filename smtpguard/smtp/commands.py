"""The grammar of MAIL and RCPT with their parameters (RFC 5321 4.1.2)."""

import re

from smtpguard.domain.envelope import Body, MailParameters, ReversePath, parse_reverse_path
from smtpguard.domain.mailbox import Mailbox, ascii_lower, parse_mailbox, split_path
from smtpguard.domain.reply import (
    R501_BAD_RECIPIENT,
    R501_BAD_SENDER,
    R501_SYNTAX,
    R552_TOO_BIG,
    R553_BAD_RECIPIENT,
    R553_BAD_SENDER,
    R553_NON_ASCII,
    R555_UNKNOWN_PARAMETER,
    Reply,
)
from smtpguard.errors import MailboxSyntaxError

_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 3


class CommandError(ValueError):
    """A command cannot be taken; ``reply`` says why."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(str(reply))


def parse_mail(arg: str, *, max_size: int, extended: bool) -> tuple[ReversePath, MailParameters, int | None]:
    """Read what follows ``MAIL``: the reverse-path, the parameters and the declared size. Raises CommandError."""
    path, rest = _path(arg, "FROM:", R501_BAD_SENDER)
    try:
        reverse_path = parse_reverse_path(path)
    except MailboxSyntaxError:
        raise CommandError(R553_BAD_SENDER) from None
    given = _parameters(rest, extended=extended)
    size = _size(given.pop("SIZE"), max_size) if "SIZE" in given else None
    body = _body(given.pop("BODY")) if "BODY" in given else None
    _refuse_others(given)
    return reverse_path, MailParameters(body=body), size


def parse_rcpt(arg: str, *, extended: bool) -> Mailbox:
    """Read what follows ``RCPT``. Raises CommandError."""
    path, rest = _path(arg, "TO:", R501_BAD_RECIPIENT)
    if not path:  # the null reverse-path is no forward-path
        raise CommandError(R501_BAD_RECIPIENT)
    try:
        recipient = parse_mailbox(path)
    except MailboxSyntaxError:
        raise CommandError(R553_BAD_RECIPIENT) from None
    _refuse_others(_parameters(rest, extended=extended))
    return recipient


def _path(arg: str, keyword: str, malformed: Reply) -> tuple[str, str]:
    """Split the path from what follows it; a space behind the colon is in no RFC, but common."""
    if ascii_lower(arg[: len(keyword)]) != ascii_lower(keyword):
        raise CommandError(R501_SYNTAX)
    try:
        path, rest = split_path(arg[len(keyword) :].lstrip(" "))
    except MailboxSyntaxError:
        raise CommandError(malformed) from None
    if not path.isascii():
        raise CommandError(R553_NON_ASCII)
    return path, rest


def _parameters(text: str, *, extended: bool) -> dict[str, str | None]:
    if text and not extended:  # RFC 5321 4.1.1.1: after HELO there are none
        raise CommandError(R501_SYNTAX)
    given: dict[str, str | None] = {}
    for part in text.split():
        match = _PARAMETER.fullmatch(part)
        if match is None or match[1].upper() in given:
            raise CommandError(R501_SYNTAX)
        given[match[1].upper()] = match[2]
    return given


def _size(value: str | None, max_size: int) -> int:
    if value is None or not _SIZE.fullmatch(value):
        raise CommandError(R501_SYNTAX)
    if int(value) > max_size:
        raise CommandError(R552_TOO_BIG)
    return int(value)


def _body(value: str | None) -> Body:
    try:
        return Body((value or "").upper())
    except ValueError:
        raise CommandError(R501_SYNTAX) from None


def _refuse_others(given: dict[str, str | None]) -> None:
    if given:
        raise CommandError(R555_UNKNOWN_PARAMETER)
