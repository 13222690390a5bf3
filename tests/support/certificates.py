"""Certificates for tests: an authority, a server that it vouches for, and a client.

    certificates = make_certificates(tmp_path)
    server = certificates.server_context()                       # ssl.SSLContext of a server
    SmarthostSettings(tls="implicit", ca_file=certificates.ca_file, ...)

All are PEM files; ``server_file`` and ``client_file`` hold a certificate and its key.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Certificates:
    """Where they lie."""

    ca_file: Path
    server_file: Path
    client_file: Path

    def server_context(self, *, asks_client: bool = False) -> ssl.SSLContext:
        """Return the context of a server; ``asks_client``: whose client needs a certificate of the same authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server_file)
        if asks_client:
            context.load_verify_locations(self.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the context of a client that trusts the authority."""
        return ssl.create_default_context(cafile=self.ca_file)


def make_certificates(directory: Path, names: tuple[str, ...] = NAMES) -> Certificates:
    """Make an authority of its own with each call; ``names`` are those of the server."""
    authority = trustme.CA()
    files = Certificates(directory / "ca.pem", directory / "server.pem", directory / "client.pem")
    authority.cert_pem.write_to_path(str(files.ca_file))
    authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(files.server_file))
    authority.issue_cert("guard.test").private_key_and_cert_chain_pem.write_to_path(str(files.client_file))
    return files
