"""The application: a business system that submits mail, and the policy it is under."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from smtpguard.domain.policy import Policy


@dataclass(frozen=True, slots=True)
class Application:
    """A business system, known by the networks it connects from."""

    name: str
    networks: tuple[IPv4Network | IPv6Network, ...]
    policy: Policy


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a transaction comes from. ``peer`` is an IP address, ``helo`` what the application called itself."""

    application: Application
    peer: str
    helo: str
    protocol: str
    """SMTP or ESMTP (RFC 5321 4.4)."""


def find_application(applications: tuple[Application, ...], host: str) -> Application | None:
    """Return the application of the longest network that holds this IP address, or None: it may not submit."""
    address = _unmapped(host)
    matches = [
        (network.prefixlen, application)
        for application in applications
        for network in application.networks
        if address in network
    ]
    return max(matches, key=lambda match: match[0])[1] if matches else None


def _unmapped(host: str) -> IPv4Address | IPv6Address:
    """Read an address, an IPv4 one also where a dual-stack socket shows it as ::ffff:192.0.2.1."""
    address = ip_address(host.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
