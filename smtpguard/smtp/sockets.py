"""The sockets that applications connect to: bound before anybody serves them, so that processes can share them."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

from smtpguard.errors import SettingsError
from smtpguard.settings import Endpoint, SmtpSettings

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket that takes connections, and whether they begin with TLS."""

    socket: socket.socket
    implicit_tls: bool

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, with the port that the system chose where 0 was asked for."""
        return Endpoint(*self.socket.getsockname()[:2])


def listen(settings: SmtpSettings) -> tuple[ListeningSocket, ...]:
    """Listen at every endpoint; those of TLS come last.

    Raises SettingsError where an endpoint cannot be had; then none is listened on.
    """
    with ExitStack() as opened:
        plain = [_listen("smtp.listen", each, opened, implicit_tls=False) for each in settings.listen]
        tls = [_listen("smtp.tls_listen", each, opened, implicit_tls=True) for each in settings.tls_listen]
        opened.pop_all()
    return tuple(chain(*plain, *tls))


def _listen(key: str, endpoint: Endpoint, opened: ExitStack, *, implicit_tls: bool) -> list[ListeningSocket]:
    """Listen at each address of a host; an empty host is every address of this machine."""
    try:
        return [
            ListeningSocket(opened.enter_context(_listen_at(family, address)), implicit_tls)
            for family, address in _addresses(endpoint)
        ]
    except OSError as error:
        raise SettingsError(f"{key}: {endpoint}: {error.strerror or error}") from error


def _addresses(endpoint: Endpoint) -> list[tuple[int, Any]]:
    """Look the host up; IPv6 addresses of a name do not count where the kernel has no IPv6."""
    found = socket.getaddrinfo(endpoint.host or None, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    return [each for each in addresses if len(addresses) == 1 or _is_spoken(each[0])]


def _is_spoken(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _listen_at(family: int, address: Any) -> socket.socket:
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        opened.pop_all()
    return listener
