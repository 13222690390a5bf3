"""A connection to PostgreSQL on the event loop: statements go out and results come in without a thread.

Only to connect takes a thread: there libpq asks name servers and waits for each host in turn.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from smtpguard.storage.driver_errors import as_store_error
from smtpguard.storage.line import LineFailed
from smtpguard.storage.postgres_connection import PromptConnection, is_stale
from smtpguard.storage.postgres_statements import Command, Statement

Rows = Sequence[tuple[Any, ...]]
Outcome = Sequence[Rows] | Exception
"""The rows of each command, or what went wrong."""


class Channel:
    """A connection that is made when it is first wanted, and anew when it was lost; one exchange at a time.

    Where the connection was lost, or could not be made, the exception is LineFailed; otherwise it is the driver's.
    """

    def __init__(
        self, connect: Callable[[], PromptConnection], statements: Sequence[Statement], *, answer_seconds: float
    ) -> None:
        self.answer_seconds = answer_seconds
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._statements = statements
        self._connection: PromptConnection | None = None
        self._on_end: Callable[[Outcome], None] | None = None

    def is_connected(self) -> bool:
        """Whether an exchange can begin; what can be read before it does is the server's farewell."""
        if self._connection is not None and is_stale(self._connection):
            self.disconnect()
        return self._connection is not None

    def connect(self, on_end: Callable[[LineFailed | None], None]) -> None:
        """Connect, and call ``on_end``."""
        attempt = self._loop.run_in_executor(None, self._opened)
        attempt.add_done_callback(lambda ended: self._adopt(ended, on_end))

    def exchange(self, commands: Sequence[Command], on_end: Callable[[Outcome], None]) -> None:
        """Send commands, which are one transaction, and call ``on_end`` once it has ended."""
        self._on_end = on_end
        self._rows: list[Rows] = []
        self._error: psycopg.Error | None = None
        try:
            for name, parameters in commands:
                self._pgconn.send_query_prepared(name, parameters)
            self._pgconn.pipeline_sync()
            if self._pgconn.flush():
                self._loop.add_writer(self._socket, self._on_writable)
        except psycopg.Error as error:
            self._lose(error)

    def give_up(self) -> None:
        """Wait no longer for the exchange under way; whether it took place is not known."""
        self._lose(psycopg.OperationalError(f"the server did not answer within {self.answer_seconds} s"))

    def disconnect(self) -> None:
        """Close the connection, on which nothing is under way."""
        if self._connection is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._connection.close()
            self._connection = None

    def _opened(self) -> PromptConnection:
        """In a thread: a connection that has all statements prepared."""
        connection = self._connect()
        try:
            connection.autocommit = True
            for statement in self._statements:
                connection.execute(statement.preparation)
            connection.pgconn.enter_pipeline_mode()
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def _adopt(self, ended: asyncio.Future[PromptConnection], on_end: Callable[[LineFailed | None], None]) -> None:
        try:
            connection = ended.result()
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no connection
            on_end(_lost(error))
            return
        self._connection, self._pgconn = connection, connection.pgconn
        self._socket = connection.fileno()
        self._transformer = Transformer(connection)
        self._loop.add_reader(self._socket, self._on_readable)
        on_end(None)

    def _on_writable(self) -> None:
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._lose(error)

    def _on_readable(self) -> None:
        if self._on_end is None:
            self.is_connected()
            return
        try:
            has_ended = self._has_ended()
        except psycopg.Error as error:
            self._lose(error)
            return
        if has_ended:
            self._end(self._error or self._rows)

    def _has_ended(self) -> bool:
        """Take what has come; each command has its results, and an end of them, and the last is that of the sync."""
        self._pgconn.consume_input()
        while not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                if self._pgconn.status != ConnStatus.OK:  # there would be no end of ends
                    raise psycopg.OperationalError(self._pgconn.get_error_message())
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return True
            else:
                self._take(result)
        return False

    def _take(self, result: PGresult) -> None:
        if result.status == ExecStatus.TUPLES_OK:
            self._transformer.set_pgresult(result)
            self._rows.append(self._transformer.load_rows(0, result.ntuples, tuple))
        elif result.status == ExecStatus.COMMAND_OK:
            self._rows.append(())
        elif self._error is None:
            self._error = psycopg.errors.error_from_result(result)

    def _lose(self, error: psycopg.Error) -> None:
        """What the server said before it went says more than that it went."""
        self.disconnect()
        self._end(_lost(self._error or error))

    def _end(self, outcome: Outcome) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(outcome)


def _lost(error: Exception) -> LineFailed:
    failure = LineFailed(str(as_store_error(error) or error))
    failure.__cause__ = error
    return failure
