"""The mailbox: the only place where an address is parsed.

The grammar is ``Mailbox`` of RFC 5321 4.1.2, with the non-ASCII letters that RFC 6531 3.3 adds, and nothing else:
no comments, no folding white space, no encoded words, no source routes, no missing brackets. What is checked is what
is mailed: ``Mailbox.text`` holds the characters as they were given, ``Mailbox.lookup_key`` the one form under which
the address book knows them.
"""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass, field

import idna

from smtpguard.errors import MailboxSyntaxError

MAX_LOCAL_PART_OCTETS = 64  # RFC 5321 4.5.3.1.1
MAX_DOMAIN_OCTETS = 255  # RFC 5321 4.5.3.1.2
MAX_LABEL_OCTETS = 63  # RFC 1035 2.3.4
MAX_MAILBOX_OCTETS = 254  # RFC 5321 4.5.3.1.3: a path has 256, brackets included

_ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff"
_DOT_STRING = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
_QUOTED_STRING = re.compile(r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"')
_LDH_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# Nearly every address: plain ASCII, no quotes, no literal. Groups: the local part, the domain.
_PLAIN = re.compile(
    r"([A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*)"
    r"@([A-Za-z0-9]+(?:(?:\.|-+)[A-Za-z0-9]+)*)"
)
_PATH = re.compile(r'<((?:[^">]++|"(?:[^"\\]++|\\.)*+")*+)>', re.DOTALL)
# Control, format, surrogate, private and unassigned characters and every separator: an operator could not see them.
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox; two are equal when they stand under the same lookup key.

    ``text`` is what was given and what is sent on; ``domain`` is the lookup form (lower case, A-labels), empty for
    the bare ``Postmaster`` of RFC 5321 4.5.1.
    """

    text: str = field(compare=False)
    lookup_key: str
    domain: str = field(compare=False)

    @property
    def holds_route(self) -> bool:
        """Whether a mail server may read another address in it, as Postfix does by default for its own domains.

        ``user%elsewhere@here`` (RFC 1123 5.2.16), ``elsewhere!user@here`` (UUCP) and ``"user@elsewhere"@here`` then
        go to ``user@elsewhere``, so that the domain says nothing about whose mailbox it is. Other software decodes
        the encoded words of RFC 2047 even here.
        """
        local_part = self.lookup_key.removesuffix(f"@{self.domain}")
        return any(mark in local_part for mark in ("%", "!", "@", "=?"))

    @property
    def can_stand_in_a_header(self) -> bool:
        """Whether ``To:`` can name it: not the bare Postmaster, nor what is read as an encoded word (RFC 2047)."""
        return bool(self.domain) and "=?" not in self.text

    def __str__(self) -> str:
        return self.text


def parse_mailbox(text: str) -> Mailbox:
    """Parse ``local-part@domain``; raise MailboxSyntaxError with the first thing that is wrong."""
    plain = _PLAIN.fullmatch(text)
    # A domain that is no longer than a label may be has no label that is; so no other limit is near.
    if plain and plain.end(1) <= MAX_LOCAL_PART_OCTETS and plain.end() - plain.start(2) <= MAX_LABEL_OCTETS:
        lookup_key = text.lower()
        return Mailbox(text, lookup_key, lookup_key[plain.start(2) :])
    return _parse_by_the_grammar(text)


def _parse_by_the_grammar(text: str) -> Mailbox:
    if ascii_lower(text) == "postmaster":
        return Mailbox(text, lookup_key="postmaster", domain="")
    _refuse_unseen(text)
    local_part, domain = _split(text)
    _refuse_longer("local part", local_part, MAX_LOCAL_PART_OCTETS)
    _refuse_longer("address", text, MAX_MAILBOX_OCTETS)
    domain_key = _domain_key(domain)
    lookup_key = f"{_local_part_key(local_part)}@{domain_key}"
    _refuse_longer("address with A-labels", lookup_key, MAX_MAILBOX_OCTETS)
    return Mailbox(text, lookup_key=lookup_key, domain=domain_key)


def parse_domain(text: str) -> str:
    """Return the lookup form of a domain (lower case, A-labels); raise MailboxSyntaxError if it is none."""
    _refuse_unseen(text)
    return _domain_key(text)


def split_path(argument: str) -> tuple[str, str]:
    """Split ``<path> parameters`` of MAIL and RCPT into what is between the brackets and what follows them.

    Raises MailboxSyntaxError where there are no brackets, or where something touches the closing one.
    """
    match = _PATH.match(argument)
    if match is None:
        raise MailboxSyntaxError("the address is not in angle brackets")
    rest = argument[match.end() :]
    if rest and not rest.startswith(" "):
        raise MailboxSyntaxError("something follows the closing bracket")
    return match[1], rest.strip(" ")


def ascii_lower(text: str) -> str:
    """Lower-case A to Z and nothing else: ``str.lower`` would turn U+212A, the Kelvin sign, into ``k``."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def _refuse_unseen(text: str) -> None:
    if text.isascii() and text.isprintable():  # nearly every address
        return
    for character in text:
        if character != " " and unicodedata.category(character) in _UNSEEN_CATEGORIES:
            raise MailboxSyntaxError(f"the address holds the character U+{ord(character):04X}")


def _split(text: str) -> tuple[str, str]:
    match = _QUOTED_STRING.match(text) if text.startswith('"') else _DOT_STRING.match(text)
    if match is None:
        raise MailboxSyntaxError("there is no valid local part before the @")
    local_part, rest = match[0], text[match.end() :]
    if not rest.startswith("@"):
        raise MailboxSyntaxError("the local part is not followed by @ and a domain")
    return local_part, rest[1:]


def _local_part_key(local_part: str) -> str:
    """RFC 5321 4.1.2: quotes and backslashes that are not needed make no other mailbox."""
    if not local_part.startswith('"'):
        return ascii_lower(local_part)
    content = ascii_lower(re.sub(r"\\(.)", r"\1", local_part[1:-1]))
    if _DOT_STRING.fullmatch(content):
        return content
    escaped = re.sub(r'(["\\])', r"\\\1", content)
    return f'"{escaped}"'


def _domain_key(domain: str) -> str:
    _refuse_longer("domain", domain, MAX_DOMAIN_OCTETS)
    if domain.startswith("["):
        return _address_literal_key(domain)
    key = ".".join(_label_key(label) for label in domain.split("."))
    _refuse_longer("domain with A-labels", key, MAX_DOMAIN_OCTETS)
    return key


def _label_key(label: str) -> str:
    if _LDH_LABEL.fullmatch(label):
        return ascii_lower(label)
    if label.isascii():
        raise MailboxSyntaxError("the domain is empty or has an invalid part")
    try:
        return idna.alabel(ascii_lower(label)).decode("ascii")
    except idna.IDNAError as error:
        raise MailboxSyntaxError(f"the domain is not valid in IDNA 2008: {error}") from error


def _address_literal_key(literal: str) -> str:
    """RFC 5321 4.1.3; the only registered tag is IPv6.

    Its key has all eight groups in hexadecimal: how ``str`` shortens an IPv4-mapped address depends on the version of
    Python, and a key must be the same on every node.
    """
    inside = literal[1:-1]
    try:
        if not literal.endswith("]") or "%" in inside:
            raise ValueError  # noqa: TRY301 - one way out for every malformed literal
        if ascii_lower(inside).startswith("ipv6:"):
            return f"[ipv6:{ipaddress.IPv6Address(inside[5:]).packed.hex(':', 2)}]"
        return f"[{ipaddress.IPv4Address(inside)}]"
    except ValueError:
        raise MailboxSyntaxError("the address literal is neither IPv4 nor IPv6") from None


def _refuse_longer(what: str, text: str, limit: int) -> None:
    if (len(text) if text.isascii() else len(text.encode("utf-8"))) > limit:
        raise MailboxSyntaxError(f"the {what} is longer than {limit} octets")
