"""Core statements as the drivers take them: compiled once, and executed without SQLAlchemy where each call counts."""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import ClauseElement, Connection, Dialect

Values = Mapping[str, Any]
Cursor = Any
"""A cursor of either driver: what they share, neither of them declares."""


class DriverStatement:
    """A statement for one engine: its text, and the way of named values into its places."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self.arranged: Callable[[Values], Any] = (
            itemgetter(*compiled.positiontup) if compiled.positional else lambda values: values
        )
        """Puts values that are those of the driver already into the order of the places."""
        processors = {name: _processor(bind.type, dialect) for name, bind in compiled.binds.items()}
        self._processors = {name: processor for name, processor in processors.items() if processor is not None}

    def execute(self, cursor: Cursor, rows: Sequence[Values]) -> int:
        """Execute it for each row; return how many rows of the table it met in all."""
        if len(rows) == 1:  # psycopg's way of executing many costs three times as much as executing one
            cursor.execute(self.text, self._parameters(rows[0]))
        else:
            cursor.executemany(self.text, [self._parameters(row) for row in rows])
        return int(cursor.rowcount)

    def _parameters(self, row: Values) -> Any:
        processed = {name: process(row[name]) for name, process in self._processors.items()}
        return self.arranged({**row, **processed})


class StatementOnEither:
    """A statement for both engines, within a transaction of SQLAlchemy's."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._by_engine: dict[str, DriverStatement] = {}

    def execute(self, connection: Connection, rows: Sequence[Values]) -> int:
        """Execute it for each row; raises the driver's errors."""
        dialect = connection.dialect
        if dialect.name not in self._by_engine:  # compiled when it is wanted: it takes the engine's driver
            self._by_engine[dialect.name] = DriverStatement(self._statement, dialect)
        return self._by_engine[dialect.name].execute(connection.connection.cursor(), rows)


def _processor(kind: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    processor: Callable[[Any], Any] | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return processor
