"""The one place where errors of the drivers become errors of the store.

Only what concerns the store is translated: it cannot be reached, is locked, is broken, has no room. A mistake of ours
(a constraint, a wrong statement) stays what it is. psycopg, which takes nine megabytes, is loaded where there is a
PostgreSQL: only then can an error be one of its.
"""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError

from smtpguard.errors import StoreError, StoreFull, StoreUnavailable

if TYPE_CHECKING:
    import psycopg

_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)
_POSTGRES_DEADLOCK = "40P01"
_POSTGRES_FULL = "53100"
_POSTGRES_READ_ONLY = "25006"  # a standby, after a fail-over
_POSTGRES_NO_PRIVILEGE = "42501"
_POSTGRES_INTERNAL = "XX"
MAX_DEADLOCKS = 3

T = TypeVar("T")


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreFull or StoreUnavailable where a driver says so; let everything else through."""
    try:
        yield
    except Exception as error:
        store_error = as_store_error(error)
        if store_error is None:
            raise
        raise store_error from error


def as_store_error(error: Exception) -> StoreError | None:
    """What a driver's error means for the store, in one line; None: nothing, the mistake is ours."""
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_error(cause, _in_one_line(cause))
    if "psycopg" in sys.modules:
        import psycopg  # noqa: PLC0415 - see above

        if isinstance(cause, psycopg.Error):
            return _postgres_error(cause, _in_one_line(cause))
    return None


def despite_deadlocks(transaction: Callable[[], T]) -> T:
    """Run a transaction, and some times again where the server ended it to break a deadlock: nothing was written."""
    for _ in range(MAX_DEADLOCKS):
        try:
            return transaction()
        except Exception as error:
            if not is_deadlock(error):
                raise
    return transaction()


def is_deadlock(error: Exception) -> bool:
    """Whether the server ended a transaction to break a deadlock."""
    return getattr(_cause(error), "sqlstate", None) == _POSTGRES_DEADLOCK


def _cause(error: Exception) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _sqlite_error(error: sqlite3.Error, words: str) -> StoreError | None:
    primary_code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits only say more
    if primary_code == sqlite3.SQLITE_FULL:
        return StoreFull(f"the store is full: {words}")
    return StoreUnavailable(f"the store cannot be used: {words}") if primary_code in _SQLITE_UNAVAILABLE else None


def _postgres_error(error: "psycopg.Error", words: str) -> StoreError | None:
    import psycopg  # noqa: PLC0415 - see above

    state = error.sqlstate or ""
    if state == _POSTGRES_FULL:
        return StoreFull(f"the store is full: {words}")
    unavailable = (
        isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        or state in {_POSTGRES_READ_ONLY, _POSTGRES_NO_PRIVILEGE}
        or state.startswith(_POSTGRES_INTERNAL)
    )
    return StoreUnavailable(f"the store cannot be used: {words}") if unavailable else None
