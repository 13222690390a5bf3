"""TLS towards the smarthost: the context that the settings ask for, and a session on it that does no I/O.

The session takes and gives octets that a connection carries. So the connection keeps its own transport under TLS too:
it can tell what the kernel has not yet taken and what lies there unread, neither of which a TLS transport shows.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smtpguard.domain.reply import clean_text
from smtpguard.errors import SettingsError
from smtpguard.settings import SmarthostSettings

READ_OCTETS = 65_536


class TlsError(Exception):
    """TLS failed; the message is for an operator."""


def client_context(settings: SmarthostSettings) -> ssl.SSLContext | None:
    """Read the files and build the context, None without TLS.

    Raises SettingsError that names the key of the file that is wrong.
    """
    if settings.tls == "none":
        return None
    with _blaming("ca_file", settings.ca_file):
        context = ssl.create_default_context(cafile=settings.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.certificate_file:
        _load_certificate(context, settings.certificate_file, settings.key_file)
    return context


class TlsSession:
    """The client's side of one TLS session with the host of this name."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host.removesuffix("."))
        self.is_established = False
        """Whether the handshake is over; nothing can be encrypted before."""
        self.is_closed = False
        """Whether the peer has said that nothing more comes."""

    def decrypt(self, data: bytes) -> Iterator[bytes]:
        """Take what came in, at first nothing, and yield what it says; raise TlsError behind what can be understood."""
        self._incoming.write(data)
        if not self.is_established:
            self._shake_hands()
        while self.is_established and (octets := self._read()):
            yield octets

    def encrypt(self, data: bytes | bytearray | memoryview) -> None:
        """Add to what is to be sent."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._object.write(rest) :]

    def to_send(self) -> bytes:
        """Return what is to be sent now, once; it may be nothing."""
        return self._outgoing.read()

    def _shake_hands(self) -> None:
        with _explained():
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                return
        self.is_established = True

    def _read(self) -> bytes:
        with _explained():
            try:
                octets = self._object.read(READ_OCTETS)
            except ssl.SSLWantReadError:
                return b""
        self.is_closed = not octets
        return octets


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise TlsError(f"TLS: {_explain(error)}") from error


def _explain(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return clean_text(f"certificate verify failed: {error.verify_message}")
    return clean_text((error.reason or str(error)).replace("_", " ").lower())


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    for name, path in (("certificate_file", certificate), ("key_file", key)):
        with _blaming(name, path):
            if path:
                path.open("rb").close()  # OpenSSL does not say which of the two it cannot read
    with _blaming("key_file" if key else "certificate_file", key or certificate):
        context.load_cert_chain(certificate, key, password="")  # so that nobody is asked for one


@contextmanager
def _blaming(key: str, path: Path | None) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise SettingsError(f"smarthost.{key}: {path}: {_explain(error)}") from error
    except OSError as error:
        raise SettingsError(f"smarthost.{key}: {path}: {error.strerror or error}") from error
