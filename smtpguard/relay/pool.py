"""The connections to the smarthost: at most ``max_connections`` in use, and idle ones for the next who asks.

Each connection in use holds one place. The place is freed when the connection lies idle again or its socket is
closed, whatever happened in between. The pool runs no task; an alarm closes what is idle for too long.
"""

import asyncio
from functools import partial

from smtpguard.errors import SmarthostUnavailable
from smtpguard.relay.connection import SmarthostConnection
from smtpguard.relay.handshake import Opener
from smtpguard.settings import Endpoint, SmarthostSettings

MAX_AGE_SECONDS = 300.0  # so that a new address of the smarthost, or a new node behind it, is met within minutes
MAX_TRANSACTIONS = 100  # mail servers limit these too; by then the cost of connecting is one in a hundred


class ConnectionPool:
    """Lends connections. Whoever borrows one gives it back, in whatever state, once."""

    def __init__(self, settings: SmarthostSettings, opener: Opener) -> None:
        self._settings = settings
        self._opener = opener
        self._places = asyncio.BoundedSemaphore(settings.max_connections)
        self._idle: list[SmarthostConnection] = []  # the latest last
        self._closed = False
        self._borrowed = 0

    @property
    def borrowed(self) -> int:
        """How many places are taken."""
        return self._borrowed

    @property
    def idle(self) -> int:
        """How many connections lie idle."""
        return len(self._idle)

    async def borrow(self) -> SmarthostConnection:
        """Lend the connection that was used last, or a fresh one.

        Raises SmarthostUnavailable if none gets free, or can be opened, within ``connect_timeout`` each.
        """
        self._refuse_if_closed()
        await self._take_place()
        try:
            connection = self._pop_idle() or await self._open()
        except BaseException:
            self._free_place()
            raise
        connection.transactions += 1
        return connection

    async def renew(self, dead: SmarthostConnection) -> SmarthostConnection:
        """Lend a fresh connection in place of one that turned out dead, which is not to be given back then.

        Raises SmarthostUnavailable; then the dead one still is to be given back.
        """
        dead.close()
        connection = await self._open()
        connection.transactions = 1
        return connection

    def give_back(self, connection: SmarthostConnection) -> None:
        """Take back a connection: keep it if it is clean and not worn, else close it."""
        seconds_left = MAX_AGE_SECONDS - connection.age
        worn = seconds_left <= 0 or connection.transactions >= MAX_TRANSACTIONS
        if connection.is_clean and not worn and not self._closed:
            self._idle.append(connection)
            connection.alarm.set(min(self._settings.idle_timeout, seconds_left), partial(self._expire, connection))
            self._free_place()
            return
        connection.quit()
        connection.lost.add_done_callback(lambda _: self._free_place())

    async def close(self) -> None:
        """Close every idle connection, and each that is in use when it is given back; lend none any more."""
        self._closed = True
        leaving, self._idle = self._idle, []
        for connection in leaving:
            connection.alarm.clear()  # what is dead already sets no other
            connection.quit()
        if leaving:
            await asyncio.wait([connection.lost for connection in leaving])

    async def _take_place(self) -> None:
        if self._places.locked():
            await self._wait_for_place()
        else:
            await self._places.acquire()  # at once
        self._borrowed += 1

    async def _wait_for_place(self) -> None:
        seconds = self._settings.connect_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            name = Endpoint(self._settings.host, self._settings.port)
            busy = f"all {self._settings.max_connections} connections were in use for {seconds:g} s"
            raise SmarthostUnavailable(f"smarthost {name}: {busy}") from None

    def _free_place(self) -> None:
        self._borrowed -= 1
        self._places.release()

    def _pop_idle(self) -> SmarthostConnection | None:
        while self._idle:
            connection = self._idle.pop()
            connection.alarm.clear()
            if connection.is_clean:
                return connection
            connection.close()
        return None

    async def _open(self) -> SmarthostConnection:
        self._refuse_if_closed()
        return await self._opener.open()

    def _expire(self, connection: SmarthostConnection) -> None:
        self._idle.remove(connection)
        connection.quit()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise SmarthostUnavailable("the guard is shutting down and opens no connection to the smarthost")
