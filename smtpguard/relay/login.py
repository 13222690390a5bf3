"""AUTH towards the smarthost (RFC 4954): PLAIN where it is offered, else LOGIN.

Whether the password may go out at all without TLS was settled with the settings. It stands in no message, not even
where the smarthost repeats it.
"""

from base64 import b64encode

from smtpguard.domain.reply import clean_text
from smtpguard.errors import SmarthostUnavailable
from smtpguard.relay.connection import SmarthostConnection
from smtpguard.settings import SmarthostSettings

MAX_COMMAND_OCTETS = 512  # RFC 4954 4: an initial response must not make the command longer, CRLF included

CHALLENGE = (334,)
SUCCESS = (235,)


async def log_in(connection: SmarthostConnection, settings: SmarthostSettings) -> None:
    """Log in; raise SmarthostUnavailable."""
    try:
        await _exchange(connection, settings)
    except SmarthostUnavailable as error:
        if any(secret in str(error) for secret in _secrets(settings)):
            repeated = f"it refused the login as {settings.username!r}, and repeated the password"
            raise SmarthostUnavailable(f"smarthost {connection.name}: {repeated}") from None
        raise


async def _exchange(connection: SmarthostConnection, settings: SmarthostSettings) -> None:
    *challenged, last = _steps(connection, settings)
    for line in challenged:
        await _say(connection, line, settings, wanted=CHALLENGE)
    await _say(connection, last, settings, wanted=SUCCESS)


def _steps(connection: SmarthostConnection, settings: SmarthostSettings) -> list[str]:
    offered = connection.capabilities.get("AUTH", "").upper().split()
    if "PLAIN" in offered:
        return _plain(settings)
    if "LOGIN" in offered:
        return _login(settings)
    raise connection.failed("it offers neither AUTH PLAIN nor AUTH LOGIN")


def _plain(settings: SmarthostSettings) -> list[str]:
    """RFC 4616: no authorisation identity, the name, the password."""
    response = _base64(f"\0{settings.username}\0{settings.password}")
    command = f"AUTH PLAIN {response}"
    return [command] if len(command) + 2 <= MAX_COMMAND_OCTETS else ["AUTH PLAIN", response]


def _login(settings: SmarthostSettings) -> list[str]:
    return ["AUTH LOGIN", _base64(settings.username), _base64(settings.password)]


async def _say(
    connection: SmarthostConnection, line: str, settings: SmarthostSettings, *, wanted: tuple[int, ...]
) -> None:
    connection.write(f"{line}\r\n".encode("ascii"), replies=1)
    reply = (await connection.reply(settings.connect_timeout)).cleaned
    if reply.code not in wanted:
        raise connection.failed(f"it said to the login as {settings.username!r}: {reply}")


def _secrets(settings: SmarthostSettings) -> tuple[str, ...]:
    """Return the password as it may stand in what a peer said."""
    return clean_text(settings.password), _base64(settings.password), _plain(settings)[-1].split(" ")[-1]


def _base64(text: str) -> str:
    return b64encode(text.encode("utf-8")).decode("ascii")
