"""The grammar of MAIL and RCPT with their parameters (RFC 5321 4.1.2, and the RFC of each parameter)."""

import re

from smtpguard.domain.envelope import (
    NO_MAIL_PARAMETERS,
    NO_RCPT_PARAMETERS,
    Body,
    MailParameters,
    RcptParameters,
    ReversePath,
    parse_reverse_path,
)
from smtpguard.domain.mailbox import Mailbox, ascii_lower, parse_mailbox, split_path
from smtpguard.domain.reply import (
    R501_BAD_RECIPIENT,
    R501_BAD_SENDER,
    R501_SYNTAX,
    R550_NO_SMTPUTF8,
    R552_TOO_BIG,
    R553_BAD_RECIPIENT,
    R553_BAD_SENDER,
    R553_NON_ASCII,
    R555_UNKNOWN_PARAMETER,
    Reply,
)
from smtpguard.errors import MailboxSyntaxError
from smtpguard.smtp.extensions import Extensions

MAX_ENVID_CHARACTERS = 100  # RFC 3461 4.4
MAX_ORCPT_CHARACTERS = 500  # RFC 3461 4.2

_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 3
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")  # RFC 3461 4
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_UTF8_XTEXT = re.compile(r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})+")  # RFC 6533 3
_CHUNK = re.compile(r"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE | re.ASCII)  # RFC 3030 2
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]+")
_NOTIFY = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}", re.IGNORECASE | re.ASCII)


class CommandError(ValueError):
    """A command cannot be taken; ``reply`` says why."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(str(reply))


def parse_mail(arg: str, *, offered: Extensions, extended: bool) -> tuple[ReversePath, MailParameters, int | None]:
    """Read what follows ``MAIL``: the reverse-path, the parameters and the declared size. Raises CommandError."""
    path, rest = _path(arg, "FROM:", R501_BAD_SENDER)
    if not rest:
        return _reverse_path(path, smtputf8=False), NO_MAIL_PARAMETERS, None
    given = _Given(rest, extended=extended)
    parameters = MailParameters(
        smtputf8=_smtputf8(given, offered),
        body=_body(given) if offered.eight_bit_mime else None,
        ret=_ret(given) if offered.dsn else None,
        envid=_envid(given) if offered.dsn else None,
    )
    size = _size(given, offered.size)
    _ignore_auth(given)
    given.refuse_the_rest(smtputf8=parameters.smtputf8)
    return _reverse_path(path, smtputf8=parameters.smtputf8), parameters, size


def parse_rcpt(arg: str, *, offered: Extensions, extended: bool, smtputf8: bool) -> tuple[Mailbox, RcptParameters]:
    """Read what follows ``RCPT``; ``smtputf8``: MAIL asked for it. Raises CommandError."""
    path, rest = _path(arg, "TO:", R501_BAD_RECIPIENT)
    if not path:  # the null reverse-path is no forward-path
        raise CommandError(R501_BAD_RECIPIENT)
    if not smtputf8 and not path.isascii():
        raise CommandError(R553_NON_ASCII)
    try:
        recipient = parse_mailbox(path)
    except MailboxSyntaxError:
        raise CommandError(R553_BAD_RECIPIENT) from None
    if not rest:
        return recipient, NO_RCPT_PARAMETERS
    given = _Given(rest, extended=extended)
    parameters = RcptParameters(
        notify=_notify(given) if offered.dsn else None,
        orcpt=_orcpt(given, smtputf8=smtputf8) if offered.dsn else None,
    )
    given.refuse_the_rest(smtputf8=smtputf8)
    return recipient, parameters


def parse_bdat(arg: str) -> tuple[int, bool]:
    """Read what follows ``BDAT``: how many octets come, and whether they are the last. Raises CommandError."""
    match = _CHUNK.fullmatch(arg)
    if match is None:
        raise CommandError(R501_SYNTAX)
    return int(match[1]), match[2] is not None


def decode_xtext(value: str) -> str:
    """Decode xtext (RFC 3461 4); raise CommandError where it is none, or holds what nobody can print."""
    decoded = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), value)
    if not _XTEXT.fullmatch(value) or not all(" " <= character <= "~" for character in decoded):
        raise CommandError(R501_SYNTAX)
    return decoded


class _Given:
    """The parameters of a command; each is taken once."""

    def __init__(self, text: str, *, extended: bool) -> None:
        if text and not extended:  # RFC 5321 4.1.1.1: after HELO there are none
            raise CommandError(R501_SYNTAX)
        if _SURROGATE.search(text):  # octets that are not UTF-8, as aiosmtpd hands them on
            raise CommandError(R501_SYNTAX)
        self._values: dict[str, str | None] = {}
        for part in filter(None, text.split(" ")):
            match = _PARAMETER.fullmatch(part)
            if match is None or match[1].upper() in self._values:
                raise CommandError(R501_SYNTAX)
            self._values[match[1].upper()] = match[2]
        self._non_ascii = not text.isascii()

    def __contains__(self, keyword: str) -> bool:
        return keyword in self._values

    def take(self, keyword: str) -> str | None:
        """Take a parameter that has a value; None where it was not given."""
        if keyword not in self._values:
            return None
        value = self._values.pop(keyword)
        if value is None:
            raise CommandError(R501_SYNTAX)
        return value

    def take_flag(self, keyword: str) -> bool:
        """Take a parameter that has none."""
        if keyword not in self._values:
            return False
        if self._values.pop(keyword) is not None:
            raise CommandError(R501_SYNTAX)
        return True

    def refuse_the_rest(self, *, smtputf8: bool) -> None:
        """Refuse what was not taken."""
        if self._values:
            raise CommandError(R555_UNKNOWN_PARAMETER)
        if self._non_ascii and not smtputf8:  # RFC 6531 3.3
            raise CommandError(R501_SYNTAX)


def _path(arg: str, keyword: str, malformed: Reply) -> tuple[str, str]:
    """Split the path from what follows it; a space behind the colon is in no RFC, but common."""
    given = arg[: len(keyword)]
    if given != keyword and ascii_lower(given) != ascii_lower(keyword):
        raise CommandError(R501_SYNTAX)
    try:
        return split_path(arg[len(keyword) :].lstrip(" "))
    except MailboxSyntaxError:
        raise CommandError(malformed) from None


def _reverse_path(path: str, *, smtputf8: bool) -> ReversePath:
    if not smtputf8 and not path.isascii():
        raise CommandError(R553_NON_ASCII)
    try:
        return parse_reverse_path(path)
    except MailboxSyntaxError:
        raise CommandError(R553_BAD_SENDER) from None


def _smtputf8(given: _Given, offered: Extensions) -> bool:
    asked = given.take_flag("SMTPUTF8")
    if asked and not offered.smtputf8:
        raise CommandError(R550_NO_SMTPUTF8)
    return asked


def _body(given: _Given) -> Body | None:
    value = given.take("BODY")
    try:
        return None if value is None else Body(value.upper())
    except ValueError:
        raise CommandError(R501_SYNTAX) from None


def _size(given: _Given, max_size: int) -> int | None:
    value = given.take("SIZE")
    if value is None:
        return None
    if not _SIZE.fullmatch(value):
        raise CommandError(R501_SYNTAX)
    if int(value) > max_size:
        raise CommandError(R552_TOO_BIG)
    return int(value)


def _ret(given: _Given) -> str | None:
    value = given.take("RET")
    if value is not None and value.upper() not in {"FULL", "HDRS"}:
        raise CommandError(R501_SYNTAX)
    return value


def _envid(given: _Given) -> str | None:
    value = given.take("ENVID")
    if value is not None and len(decode_xtext(value)) > MAX_ENVID_CHARACTERS:
        raise CommandError(R501_SYNTAX)
    return value


def _notify(given: _Given) -> str | None:
    value = given.take("NOTIFY")
    if value is not None and not _NOTIFY.fullmatch(value):
        raise CommandError(R501_SYNTAX)
    return value


def _orcpt(given: _Given, *, smtputf8: bool) -> str | None:
    value = given.take("ORCPT")
    if value is None:
        return None
    address_type, _, address = value.partition(";")
    if not _ADDRESS_TYPE.fullmatch(address_type) or not address or len(value) > MAX_ORCPT_CHARACTERS:
        raise CommandError(R501_SYNTAX)
    internationalised = ascii_lower(address_type) == "utf-8" and _UTF8_XTEXT.fullmatch(address)
    if not internationalised or (not smtputf8 and not address.isascii()):
        decode_xtext(address)
    return value


def _ignore_auth(given: _Given) -> None:
    """RFC 4954 5: who an application says it sends for is not passed on; many send ``AUTH=<>`` unasked."""
    value = given.take("AUTH")
    if value not in {None, "<>"}:
        decode_xtext(value or "")
