"""The smarthost as the services see it: transactions over a pool of connections."""

from collections.abc import Coroutine
from typing import Any

from smtpguard.domain.capabilities import Capabilities
from smtpguard.domain.envelope import MailParameters, ReversePath
from smtpguard.relay.handshake import Opener
from smtpguard.relay.offers import Offers
from smtpguard.relay.pool import ConnectionPool
from smtpguard.relay.transaction import SmarthostTransaction
from smtpguard.settings import SmarthostSettings

__all__ = ["Smarthost", "SmarthostTransaction"]


class Smarthost:
    """The real mail server; ``hostname`` is what the guard calls itself in EHLO."""

    def __init__(self, settings: SmarthostSettings, *, hostname: str) -> None:
        self._settings = settings
        self._opener = Opener(settings, hostname)
        self._pool = ConnectionPool(settings, self._opener)
        self._offers = Offers(self._opener, self._pool)

    def begin(self, reverse_path: ReversePath, parameters: MailParameters, *, size: int | None) -> SmarthostTransaction:
        """Return a new transaction, without any I/O; ``size`` in octets as RFC 1870 counts them."""
        return SmarthostTransaction(
            self._pool, self._settings, reverse_path=reverse_path, parameters=parameters, size=size
        )

    def offers(self) -> Coroutine[Any, Any, Capabilities | None]:
        """Return what the smarthost offers, None where nobody knows yet.

        Within seconds, and without ever raising: where the smarthost does not answer it is what it offered last.
        """
        return self._offers.get()

    def load_tls(self) -> None:
        """Read the files of TLS, for the connections to come; otherwise the first of them does.

        Raises SettingsError that names the key of the file that is wrong; then everything stays as it was.
        """
        self._opener.load_tls()

    async def close(self) -> None:
        """Close every idle connection with QUIT, and each that is in use when its transaction ends; begin no more."""
        await self._pool.close()
