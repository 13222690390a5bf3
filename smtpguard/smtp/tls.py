"""TLS towards applications: the certificate, and the layer that a session puts between itself and its socket."""

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from typing import cast

from smtpguard.errors import SettingsError
from smtpguard.settings import TlsSettings

HANDSHAKE_SECONDS = 30
SHUTDOWN_SECONDS = 5


class TlsLayer(SSLProtocol):
    """asyncio's own layer, with a small buffer: a thousand idle sessions would hold 256 MiB of empty ones."""

    max_size = 16 * 1024

    def __init__(self, loop: asyncio.AbstractEventLoop, session: asyncio.Protocol, context: ssl.SSLContext) -> None:
        self.handshake = loop.create_future()
        """Done with the handshake, or fails with it."""
        super().__init__(
            loop,
            session,
            context,
            self.handshake,
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )

    @property
    def transport(self) -> asyncio.Transport:
        """What the session writes to from now on."""
        return cast("asyncio.Transport", self._app_transport)

    def feed(self, data: bytes) -> None:
        """Take octets that were read from the socket before this layer was in place."""
        while data:
            buffer = self.get_buffer(len(data))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.buffer_updated(size)
            data = data[size:]


def load_certificate(settings: TlsSettings) -> ssl.SSLContext | None:
    """Return what TLS is spoken with, None where there is no certificate. Raises SettingsError."""
    if settings.certificate_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(settings.certificate_file, settings.key_file, password=_ask_nobody)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = settings.certificate_file if settings.key_file is None else f"{settings.certificate_file} and its key"
        raise SettingsError(f"tls.certificate_file: {files}: {explain(error)}") from error
    return context


def describe(transport: asyncio.BaseTransport) -> str:
    """Name the version and the cipher suite that a connection uses."""
    name, version, _ = transport.get_extra_info("cipher")
    return f"{version} with cipher {name}"


def explain(error: Exception) -> str:
    """Say in a few words what OpenSSL or the system means."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error) or "the connection was lost"


def _ask_nobody() -> str:
    raise ValueError("the key is encrypted, and nobody is there to type its password")
