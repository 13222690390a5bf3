"""Checkpoints of SQLite: they keep the write-ahead log short under a load that never ends.

The log begins anew only where all of it is in the database file at the moment of a commit. Under endless load that
moment never comes by itself; so most of the log is moved while traffic goes on, and for the rest traffic stands still
for some milliseconds.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

PAGES = 2000
"""When commits have written about so many pages the log is moved: eight megabytes."""
GROWTH_BYTES = 8_388_608
"""So much longer others may make the log, who write much at a time: what they write is counted in no pages here."""
LOOK_SECONDS = 0.05
"""How often the length of the log is looked at: to look at each commit would make it cost a tenth more."""
STANDSTILL_SECONDS = 1.0
"""How long traffic stands still at most; if the disk takes longer, what is recorded waits with all other writes."""
TRIES = 50
TRY_SECONDS = 0.01
"""How often a checkpoint tries to begin while that of somebody else is under way: SQLite itself does not wait then."""
PAGES_OF_COMMIT = 3
"""What a commit writes beside a page for each of its rows: rows of the ledger lie together, their keys do not."""


class Checkpoints:
    """The checkpoints that the commits of an event loop call for, in a thread and on a connection of their own."""

    def __init__(self, connection: sqlite3.Connection, on_restarted: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._on_restarted = on_restarted
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="smtpguard-checkpoints")
        [(_, _, file)] = connection.execute("PRAGMA database_list")
        self._log = Path(f"{file}-wal")
        self._pages = 0
        self._size_left = 0
        self._next_look = 0.0
        self._is_under_way = False
        self.is_restarting = False
        """The log begins anew: who commits now waits for the disk."""

    def committed(self, rows: int) -> None:
        """Count a commit of so many rows."""
        self._pages += PAGES_OF_COMMIT + rows
        if not self._is_under_way and (self._pages >= PAGES or self._is_grown()):
            checkpoint = self._loop.run_in_executor(self._thread, self._checkpoint)
            checkpoint.add_done_callback(self._restarted)
            self._is_under_way = True

    async def close(self) -> None:
        """Finish what is under way, and disconnect."""
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    def _is_grown(self) -> bool:
        now = self._loop.time()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        return self._size() > self._size_left + GROWTH_BYTES

    def _size(self) -> int:
        """Return the size of the log's file, which does not begin anew with the log but is cut to its limit."""
        with suppress(OSError):
            return self._log.stat().st_size
        return 0

    def _checkpoint(self) -> None:
        with suppress(sqlite3.Error):  # it is tried again after as many pages
            self._is_moved("PASSIVE")
            self._loop.call_soon_threadsafe(self._restart)
            if self._is_moved("RESTART"):  # the first commit of the new log waits for the disk; let it be this one
                self._connection.execute("PRAGMA user_version = 0")  # as it is: nothing changes, and a page is written

    def _is_moved(self, manner: str) -> bool:
        for _ in range(TRIES):
            is_busy, pages, _ = self._connection.execute(f"PRAGMA wal_checkpoint({manner})").fetchone()
            if not is_busy or pages >= 0:
                return not is_busy
            time.sleep(TRY_SECONDS)
        return False

    def _restart(self) -> None:
        self.is_restarting = True
        self._loop.call_later(STANDSTILL_SECONDS, self._go_on)

    def _restarted(self, _: object) -> None:
        self._is_under_way = False
        self._pages = 0
        self._size_left = self._size()
        self._go_on()

    def _go_on(self) -> None:
        if self.is_restarting:
            self.is_restarting = False
            self._on_restarted()
