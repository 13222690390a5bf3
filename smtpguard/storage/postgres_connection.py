"""Connections to PostgreSQL in which every wait has an end, on our side."""

import math
import select as system_select
from time import monotonic
from typing import Any, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

T = TypeVar("T")


class PromptConnection(psycopg.Connection[TupleRow]):
    """A connection that closes itself when its server does not answer; time-outs of the server's own come first."""

    answer_seconds = math.inf

    def wait(self, gen: PQGen[T], *arguments: Any, **options: Any) -> T:
        """Wait for one answer of the server; every statement goes through here."""
        return super().wait(self._bounded(gen), *arguments, **options)

    def _bounded(self, waiting: PQGen[T]) -> PQGen[T]:
        """Pass on what the driver waits for; it is told of nothing every tenth of a second."""
        deadline = monotonic() + self.answer_seconds
        try:
            wanted = next(waiting)
            while True:
                happened = yield wanted
                if not happened and monotonic() > deadline:
                    self.close()
                    raise psycopg.OperationalError(f"the server did not answer within {self.answer_seconds} s")
                wanted = waiting.send(happened)
        except StopIteration as end:
            return cast("T", end.value)


def is_stale(connection: PromptConnection) -> bool:
    """Whether it has something to read although nothing was asked: that is the server's farewell."""
    if connection.closed:
        return True
    poll = system_select.poll()
    poll.register(connection.fileno(), system_select.POLLIN)
    return bool(poll.poll(0))
