"""What the two engines are told in different words.

SQLAlchemy's part for PostgreSQL takes two megabytes and is loaded where there is one.
"""

from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Dialect, Table, func, make_url, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeEngine

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

    Insert = sqlite.Insert | postgresql.Insert

SQLITE = make_url("sqlite://").get_dialect()()
BULK_CACHE_KIBIBYTES = 32_768
ROWS_A_STATEMENT = 100
"""Half the time of one row a statement; SQLite before 3.32 takes 999 values."""
_POSTGRES = "postgresql"


def insert_into(dialect: Dialect, table: Table) -> "Insert":
    """Return an INSERT that has ON CONFLICT."""
    if not _is_postgres(dialect):
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - see above

    return postgresql.insert(table)


def lock(connection: Connection, number: int) -> None:
    """Hold the lock of this number until the transaction ends, against all processes of the store.

    SQLite has one lock only, and whoever writes holds it from the beginning.
    """
    if _is_postgres(connection.dialect):
        connection.execute(select(func.pg_advisory_xact_lock(number)))


def storing(dialect: Dialect, kind: TypeEngine[Any]) -> Callable[[Any], Any]:
    """Return what makes a value of this type into one that the driver takes, where no statement of ours does it."""
    process = kind.dialect_impl(dialect).bind_processor(dialect)
    return process or (lambda value: value)


def expect_much(connection: Connection) -> None:
    """Make room for a transaction that touches many pages all over the store.

    SQLite would write pages out and read them back within the transaction; PostgreSQL has shared buffers.
    """
    if not _is_postgres(connection.dialect):
        connection.exec_driver_sql(f"PRAGMA cache_size = -{BULK_CACHE_KIBIBYTES}")


def fill(connection: Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """Put many rows into a table, the fastest way the driver has."""
    driver_connection: Any = connection.connection.driver_connection
    if _is_postgres(connection.dialect):
        with driver_connection.cursor() as cursor, cursor.copy(f"COPY {table.name} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    else:
        places = f"({', '.join('?' * len(table.columns))})"
        left = iter(rows)
        while together := list(islice(left, ROWS_A_STATEMENT)):
            statement = f"INSERT INTO {table.name} VALUES {', '.join([places] * len(together))}"  # noqa: S608 - the name is ours
            driver_connection.execute(statement, list(chain.from_iterable(together)))


def _is_postgres(dialect: Dialect) -> bool:
    return dialect.name == _POSTGRES
