"""The context out of the settings, and a TLS session without any I/O."""

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.errors import SettingsError
from smtpguard.relay.tls import TlsError, TlsSession, client_context
from smtpguard.settings import SmarthostSettings
from tests.support.certificates import Certificates, make_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


class Server:
    """The other side, in memory."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.heard = b""
        self.is_established = False

    def receive(self, octets: bytes) -> None:
        self.incoming.write(octets)
        try:
            if not self.is_established:
                self.tls.do_handshake()
                self.is_established = True
            while octets := self.tls.read(100_000):
                self.heard += octets
        except ssl.SSLWantReadError:
            pass

    def say(self, octets: bytes) -> None:
        while octets:
            octets = octets[self.tls.write(octets) :]


def session_with(certificates: Certificates, host: str = "localhost", **settings) -> tuple[TlsSession, Server]:
    context = client_context(SmarthostSettings(tls="implicit", ca_file=certificates.ca_file, **settings))
    assert context is not None
    return TlsSession(context, host), Server(certificates.server_context())


def decrypt(session: TlsSession, octets: bytes) -> bytes:
    return b"".join(session.decrypt(octets))


def shake_hands(session: TlsSession, server: Server) -> None:
    assert decrypt(session, b"") == b""
    while not (session.is_established and server.is_established):
        server.receive(session.to_send())
        assert decrypt(session, server.outgoing.read()) == b""
    server.receive(session.to_send())


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost.", "127.0.0.1", "::1"])
def test_both_sides_hear_each_other(certificates, host: str) -> None:
    session, server = session_with(certificates, host)
    shake_hands(session, server)
    wire = b"0123456789abcdef" * 10_000
    session.encrypt(memoryview(wire))
    server.receive(session.to_send())
    server.say(wire)

    assert server.heard == wire
    assert decrypt(session, server.outgoing.read()) == wire
    assert session.to_send() == b""
    assert not session.is_closed


@given(cuts=st.lists(st.integers(1, 400), min_size=1))
def test_the_words_are_the_same_however_they_are_cut(certificates, cuts: list[int]) -> None:
    """Session tickets among them; the end that the peer announces comes last."""
    session, server = session_with(certificates)
    shake_hands(session, server)
    server.say(b"250 one\r\n")
    server.say(b"250 two\r\n" * 100)
    with pytest.raises(ssl.SSLWantReadError):
        server.tls.unwrap()
    octets, heard = server.outgoing.read(), b""
    while octets:
        assert not session.is_closed
        step = cuts[len(octets) % len(cuts)]
        heard, octets = heard + decrypt(session, octets[:step]), octets[step:]

    assert heard == b"250 one\r\n" + b"250 two\r\n" * 100
    assert session.is_closed


@pytest.mark.parametrize("said", [b"220 mail ready\r\n" * 3, b"\x16\x03\x03\xff\xff" + b"x" * 70_000, b"\x00" * 100])
def test_what_is_no_tls(certificates, said: bytes) -> None:
    session, _ = session_with(certificates)
    decrypt(session, b"")
    with pytest.raises(TlsError, match=r"^TLS: [a-z0-9 ]+$"):
        decrypt(session, said)


def test_octets_that_were_tampered_with(certificates) -> None:
    """What was said before them is heard: it may be the reply to the final dot."""
    session, server = session_with(certificates)
    shake_hands(session, server)
    server.say(b"250 queued\r\n")
    server.say(b"421 closing\r\n")
    octets = bytearray(server.outgoing.read())
    octets[-1] ^= 1
    said = session.decrypt(bytes(octets))

    assert next(said) == b"250 queued\r\n"
    with pytest.raises(TlsError, match=r"TLS: .*bad"):
        next(said)


def test_no_context_without_tls() -> None:
    assert client_context(SmarthostSettings()) is None


def test_the_certificate_is_looked_at_unless_told_otherwise(certificates) -> None:
    usual, lax = (
        client_context(SmarthostSettings(tls="starttls", tls_verify=verify, ca_file=certificates.ca_file))
        for verify in (True, False)
    )
    assert usual is not None
    assert lax is not None

    assert (usual.verify_mode, usual.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)
    assert usual.minimum_version == lax.minimum_version == ssl.TLSVersion.TLSv1_2


def test_without_ca_file_the_system_says_whom_to_trust() -> None:
    context = client_context(SmarthostSettings(tls="starttls"))
    assert context is not None

    assert context.get_ca_certs() == ssl.create_default_context().get_ca_certs()


def encrypted_key(certificates: Certificates, directory: Path) -> Path:
    key = load_pem_private_key(certificates.client_file.read_bytes(), password=None)
    file = directory / "encrypted.key"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    return file


@pytest.mark.parametrize("key", ["ca_file", "certificate_file", "key_file"])
@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file or directory"), (b"", "."), (b"not a certificate", ".")]
)
def test_a_file_that_is_wrong(certificates, tmp_path, key: str, content: bytes | None, words: str) -> None:
    """The message names its key, and is one line."""
    file = tmp_path / "wrong.pem"
    if content is not None:
        file.write_bytes(content)
    files = {"certificate_file": certificates.client_file, "ca_file": certificates.ca_file} | {key: file}
    with pytest.raises(SettingsError, match=rf"^smarthost\.{key}: {file}: .*{words}") as caught:
        client_context(SmarthostSettings(tls="implicit", **files))

    assert str(caught.value).isprintable()


def test_a_key_that_belongs_to_another_certificate(certificates) -> None:
    files = {"certificate_file": certificates.client_file, "key_file": certificates.server_file}
    with pytest.raises(SettingsError, match=r"^smarthost\.key_file: .*server\.pem: key values mismatch$"):
        client_context(SmarthostSettings(tls="implicit", **files))


def test_a_key_with_a_password_asks_nobody_for_it(certificates, tmp_path) -> None:
    """OpenSSL would ask on the terminal, and the guard would stand still."""
    files = {"certificate_file": certificates.client_file, "key_file": encrypted_key(certificates, tmp_path)}
    with pytest.raises(SettingsError, match=r"^smarthost\.key_file: "):
        client_context(SmarthostSettings(tls="implicit", **files))
