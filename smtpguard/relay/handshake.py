"""Opening a connection to the smarthost: connect, TLS, greeting, EHLO, AUTH."""

import asyncio
import math
import ssl
from collections.abc import Iterable, Mapping
from typing import cast

from smtpguard.domain.capabilities import Capabilities
from smtpguard.domain.reply import Reply
from smtpguard.relay.connection import POSITIVE, SmarthostConnection
from smtpguard.relay.login import log_in
from smtpguard.relay.parser import PeerReply
from smtpguard.relay.tls import TlsSession, client_context
from smtpguard.settings import Endpoint, SmarthostSettings

READY_FOR_TLS = (220,)


class Opener:
    """Opens connections; ``hostname`` is what the guard calls itself in EHLO.

    The files of TLS are read by ``load_tls``, or else for the first connection.
    """

    def __init__(self, settings: SmarthostSettings, hostname: str) -> None:
        self._settings = settings
        self._hostname = hostname
        self._context: ssl.SSLContext | None = None
        self._is_loaded = settings.tls == "none"
        self.offered: Capabilities | None = None
        """What the smarthost offered last, None before it has offered anything."""
        self.offered_at = -math.inf
        """When the connection on which it did was opened, by the clock of the event loop."""

    def load_tls(self) -> None:
        """Read the files of TLS, for the connections to come.

        Raises SettingsError that names the key of the file that is wrong; then everything stays as it was.
        """
        self._context, self._is_loaded = client_context(self._settings), True

    async def open(self) -> SmarthostConnection:
        """Return a connection on which MAIL can be sent, within ``connect_timeout``.

        Raises SmarthostUnavailable; SettingsError where the files of TLS are read now, and one is wrong.
        """
        if not self._is_loaded:
            self.load_tls()
        settings = self._settings
        connection = SmarthostConnection(str(Endpoint(settings.host, settings.port)))
        try:
            async with asyncio.timeout(settings.connect_timeout):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: connection, settings.host, settings.port)
                await self._make_ready(connection)
        except TimeoutError:
            raise connection.failed(f"not ready within {settings.connect_timeout:g} s") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot encode
            raise connection.failed(f"cannot connect: {error}") from error
        except BaseException:
            connection.close()
            raise
        self.offered, self.offered_at = known_capabilities(connection.capabilities), connection.opened_at
        return connection

    async def _make_ready(self, connection: SmarthostConnection) -> None:
        if self._settings.tls == "implicit":
            await self._start_tls(connection)
        greeting = await connection.answer(self._settings.connect_timeout)
        _require_positive(connection, greeting, "the greeting")
        await self._say_hello(connection)
        if self._settings.tls == "starttls":
            await self._ask_for_tls(connection)
            await self._start_tls(connection)
            await self._say_hello(connection)
        if self._settings.username:
            await log_in(connection, self._settings)

    async def _say_hello(self, connection: SmarthostConnection) -> None:
        connection.capabilities = {}  # RFC 3207 4.2: what was offered before TLS is not to be relied on
        reply = await self._ask(connection, f"EHLO {self._hostname}")
        if reply.code in POSITIVE:
            connection.capabilities = parse_capabilities(reply.lines)
        elif 500 <= reply.code < 600:  # RFC 5321 3.2: a server that knows no EHLO
            reply = await self._ask(connection, f"HELO {self._hostname}")
            _require_positive(connection, reply.cleaned, "HELO")
        else:
            raise connection.failed(f"it said to EHLO: {reply.cleaned}")

    async def _ask_for_tls(self, connection: SmarthostConnection) -> None:
        if "STARTTLS" not in connection.capabilities:
            raise connection.failed("it does not offer STARTTLS")
        reply = await self._ask(connection, "STARTTLS")
        if reply.code not in READY_FOR_TLS:
            raise connection.failed(f"it said to STARTTLS: {reply.cleaned}")

    async def _start_tls(self, connection: SmarthostConnection) -> None:
        session = TlsSession(cast("ssl.SSLContext", self._context), self._settings.host)
        await connection.start_tls(session, self._settings.connect_timeout)

    async def _ask(self, connection: SmarthostConnection, command: str) -> PeerReply:
        connection.write(f"{command}\r\n".encode("ascii"), replies=1)
        return await connection.reply(self._settings.connect_timeout)


def parse_capabilities(lines: Iterable[str]) -> dict[str, str]:
    """Parse the lines of the reply to EHLO, the first of which is a greeting: keywords in upper case, and values.

    What is said twice is joined; ``AUTH=PLAIN``, which was written before RFC 2554, is read as ``AUTH PLAIN``.
    """
    _, *offers = lines
    capabilities: dict[str, str] = {}
    for offer in offers:
        keyword, _, value = offer.strip().partition(" ")
        keyword, _, first_value = keyword.upper().partition("=")
        values = (capabilities.get(keyword, ""), first_value, value.strip())
        if keyword:
            capabilities[keyword] = " ".join(filter(None, values))
    return capabilities


def known_capabilities(capabilities: Mapping[str, str]) -> Capabilities:
    """Pick what concerns a message and its envelope."""
    size = capabilities.get("SIZE", "")
    return Capabilities(
        size=(int(size) or None) if size.isascii() and size.isdigit() else None,  # RFC 1870 3: 0 is no limit
        eight_bit_mime="8BITMIME" in capabilities,
        smtputf8="SMTPUTF8" in capabilities,
        dsn="DSN" in capabilities,
    )


def _require_positive(connection: SmarthostConnection, reply: Reply, step: str) -> None:
    if not reply.is_positive:
        raise connection.failed(f"it said to {step}: {reply}")
