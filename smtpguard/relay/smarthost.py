"""The smarthost as the services see it: transactions over a pool of connections."""

from smtpguard.domain.envelope import MailParameters, ReversePath
from smtpguard.relay.pool import ConnectionPool
from smtpguard.relay.transaction import SmarthostTransaction
from smtpguard.settings import SmarthostSettings

__all__ = ["Smarthost", "SmarthostTransaction"]


class Smarthost:
    """The real mail server. ``hostname`` is what the guard calls itself in EHLO."""

    def __init__(self, settings: SmarthostSettings, *, hostname: str) -> None:
        self._settings = settings
        self._pool = ConnectionPool(settings, hostname)

    def begin(self, reverse_path: ReversePath, parameters: MailParameters, *, size: int | None) -> SmarthostTransaction:
        """Return a new transaction, without any I/O; ``size`` in octets as RFC 1870 counts them."""
        return SmarthostTransaction(
            self._pool, self._settings, reverse_path=reverse_path, parameters=parameters, size=size
        )

    async def close(self) -> None:
        """Close every idle connection with QUIT, and each that is in use when its transaction ends; begin no more."""
        await self._pool.close()
