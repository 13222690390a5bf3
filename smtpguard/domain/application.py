"""The application: a business system that submits mail, and the policy it is under."""

import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from smtpguard.domain.envelope import ReversePath
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.policy import Policy

_IPV6_PREFIX = 64  # what one site is given at least
REMEMBERED_HOSTS = 1024
"""How many addresses are read once only: applications come from few hosts, and are looked for at each message."""


@dataclass(frozen=True, slots=True)
class Application:
    """A business system, known by the networks it connects from, or by its login."""

    name: str
    networks: tuple[IPv4Network | IPv6Network, ...]
    policy: Policy
    username: str = ""
    """Empty: it has no login."""
    password_hashes: tuple[str, ...] = field(default=(), repr=False)
    """argon2id; any of them will do."""
    max_messages_per_minute: int = 0
    """0: no limit."""
    reverse_path_domains: frozenset[str] = frozenset()
    """Lookup forms; empty: it may send as any."""
    may_verify: bool = False
    """Whether its verification mail is relayed to recipients who are not verified."""

    def may_send_as(self, reverse_path: ReversePath) -> bool:
        """Whether it may use this reverse-path; the null reverse-path is everybody's (RFC 5321 4.5.5)."""
        if not self.reverse_path_domains or not isinstance(reverse_path, Mailbox):
            return True
        return reverse_path.domain in self.reverse_path_domains


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a transaction comes from. ``peer`` is an IP address, ``helo`` what the application called itself."""

    application: Application
    peer: str
    helo: str
    protocol: str
    """The keyword of ``Received: ... with`` (RFC 3848, RFC 6531 3.7.3)."""
    tls: str = ""
    """Version and cipher suite, empty without TLS."""


def protocol_keyword(*, extended: bool, smtputf8: bool, tls: bool, authenticated: bool) -> str:
    """Return the keyword of ``Received: ... with`` (RFC 3848, RFC 6531 3.7.3)."""
    if not extended:
        return "SMTP"
    return ("UTF8SMTP" if smtputf8 else "ESMTP") + "S" * tls + "A" * authenticated


def find_application(applications: tuple[Application, ...], host: str) -> Application | None:
    """Return the application of the longest network that holds this IP address, or None: it may not submit."""
    address = ip_address_of(host)
    if address is None:
        return None
    found, longest = None, -1
    for application in applications:
        for network in application.networks:
            if network.prefixlen > longest and address in network:
                found, longest = application, network.prefixlen
    return found


def find_login(applications: tuple[Application, ...], username: str) -> Application | None:
    """Return the application that logs in by this name."""
    return next((application for application in applications if username and application.username == username), None)


@lru_cache(REMEMBERED_HOSTS)
def ip_address_of(host: str) -> IPv4Address | IPv6Address | None:
    """Read an address, an IPv4 one also where a dual-stack socket shows it as ::ffff:192.0.2.1; None: it is none."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


@lru_cache(REMEMBERED_HOSTS)
def network_of(peer: str) -> str:
    """Return what sessions are counted by: the IPv4 address, or the IPv6 /64."""
    address = ip_address_of(peer)
    if address is None:
        return peer
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, _IPV6_PREFIX), strict=False))


def opaque_string(text: str) -> str:
    """Bring a name or a password into the form in which it is compared.

    It is that of RFC 8265 4.2 (OpaqueString): Unicode as NFC, every kind of space as U+0020, the case kept.
    """
    if text.isascii():
        return text
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in text)
    return unicodedata.normalize("NFC", spaced)
