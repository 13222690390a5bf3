"""Commands on their way to the smarthost: several in one flight where it offers PIPELINING, else step by step."""

from collections.abc import Sequence

from smtpguard.domain.reply import Reply
from smtpguard.relay.connection import SmarthostConnection

PIPELINED_COMMANDS = 100
"""How many commands go out before their replies are awaited: it bounds what waits at either end (RFC 2920 3.1)."""


class Flight:
    """Commands, and the replies to them one by one."""

    def __init__(self, connection: SmarthostConnection, commands: Sequence[bytes], *, seconds: float) -> None:
        self._connection = connection
        self._unsent = commands
        self._seconds = seconds
        self._due = 0

    async def answer(self) -> Reply:
        """Return the reply to the next command; raise SmarthostUnavailable (see ``SmarthostConnection.answer``)."""
        if not self._due:
            await self._send_group()
        self._due -= 1
        reply = await self._connection.answer(self._seconds)
        if not self._due:
            self._connection.ensure_in_step()
        return reply

    async def cut_short(self) -> None:
        """Send no more commands, and drop the replies that are still due; raise SmarthostUnavailable."""
        self._unsent = ()
        while self._due:
            self._due -= 1
            await self._connection.reply(self._seconds)

    async def _send_group(self) -> None:
        size = PIPELINED_COMMANDS if "PIPELINING" in self._connection.capabilities else 1
        group, self._unsent = self._unsent[:size], self._unsent[size:]
        self._due = len(group)
        self._connection.write(b"".join(group), replies=self._due)
        if self._connection.is_paused:
            await self._connection.flush(self._seconds)
