"""The listening sockets: bound before anybody serves them, so that processes can share them."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from smtpguard.errors import SettingsError
from smtpguard.settings import Endpoint, Settings

BACKLOG = 1024

Part = Literal["smtp", "web"]
"""What a guard consists of."""


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket that takes connections, and whether they begin with TLS."""

    socket: socket.socket
    implicit_tls: bool = False

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, with the port that the system chose where 0 was asked for."""
        return Endpoint(*self.socket.getsockname()[:2])


@dataclass(frozen=True, slots=True)
class Sockets:
    """Those of a guard; a part that has none is not served."""

    smtp: tuple[ListeningSocket, ...]
    """Those of TLS come last."""
    web: tuple[ListeningSocket, ...] = ()
    """Those of the API."""
    pages: tuple[ListeningSocket, ...] = ()
    """Those of the recipients' pages."""

    @property
    def all(self) -> tuple[ListeningSocket, ...]:
        """Those of all parts."""
        return self.smtp + self.web + self.pages


def listen(settings: Settings, only: Part | None = None) -> Sockets:
    """Listen at every endpoint of every part, or of one.

    Raises SettingsError where an endpoint cannot be had, or the one part has none; then none is listened on.
    """
    smtp, web = settings.smtp, settings.web
    if only == "web" and not (web.listen or web.public_listen):
        raise SettingsError("web.listen and web.public_listen are empty: there is nothing to serve")
    with ExitStack() as opened:
        plain = [] if only == "web" else [_listen("smtp.listen", each, opened) for each in smtp.listen]
        tls = [] if only == "web" else [_listen("smtp.tls_listen", each, opened, tls=True) for each in smtp.tls_listen]
        http = [] if only == "smtp" else [_listen("web.listen", each, opened) for each in web.listen]
        pages = [] if only == "smtp" else [_listen("web.public_listen", each, opened) for each in web.public_listen]
        opened.pop_all()
    return Sockets(tuple(chain(*plain, *tls)), tuple(chain(*http)), tuple(chain(*pages)))


def _listen(key: str, endpoint: Endpoint, opened: ExitStack, *, tls: bool = False) -> list[ListeningSocket]:
    """Listen at each address of a host; an empty host is every address of this machine."""
    try:
        return [
            ListeningSocket(opened.enter_context(_listen_at(family, address)), tls)
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
        # Inherited by each connection, for event loops that do not see to it: an answer in two pieces would wait 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        opened.pop_all()
    return listener
