"""Opening a connection to the smarthost: connect, greeting, EHLO."""

import asyncio
from collections.abc import Iterable

from smtpguard.domain.reply import Reply
from smtpguard.relay.connection import POSITIVE, SmarthostConnection
from smtpguard.settings import Endpoint, SmarthostSettings


async def open_connection(settings: SmarthostSettings, hostname: str) -> SmarthostConnection:
    """Return a connection on which MAIL can be sent, within ``connect_timeout``; raise SmarthostUnavailable."""
    connection = SmarthostConnection(str(Endpoint(settings.host, settings.port)))
    try:
        async with asyncio.timeout(settings.connect_timeout):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, settings.host, settings.port)
            await _greet(connection, hostname, settings.connect_timeout)
    except TimeoutError:
        raise connection.failed(f"not ready within {settings.connect_timeout:g} s") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot encode
        raise connection.failed(f"cannot connect: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


async def _greet(connection: SmarthostConnection, hostname: str, seconds: float) -> None:
    greeting = await connection.answer(seconds)
    _require_positive(connection, greeting, "the greeting")
    connection.write(f"EHLO {hostname}\r\n".encode("ascii"), replies=1)
    reply = await connection.reply(seconds)
    if reply.code in POSITIVE:
        connection.capabilities = parse_capabilities(reply.lines)
    elif 500 <= reply.code < 600:  # RFC 5321 3.2: a server that knows no EHLO
        connection.write(f"HELO {hostname}\r\n".encode("ascii"), replies=1)
        _require_positive(connection, await connection.answer(seconds), "HELO")
    else:
        raise connection.failed(f"it said to EHLO: {reply.cleaned()}")


def parse_capabilities(lines: Iterable[str]) -> dict[str, str]:
    """Parse the lines of the reply to EHLO, the first of which is a greeting: keywords in upper case, and values."""
    _, *offers = lines
    pairs = (offer.strip().partition(" ") for offer in offers)
    return {keyword.upper(): value.strip() for keyword, _, value in pairs if keyword}


def _require_positive(connection: SmarthostConnection, reply: Reply, step: str) -> None:
    if not reply.is_positive:
        raise connection.failed(f"it said to {step}: {reply}")
