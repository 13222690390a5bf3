"""The statements of the path of a reply on PostgreSQL: each serves many requests at once, its values come as arrays."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import (
    ClauseElement,
    Column,
    Dialect,
    Text,
    bindparam,
    column,
    func,
    insert,
    literal_column,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from smtpguard.storage.dialects import insert_into
from smtpguard.storage.facts import fact_columns
from smtpguard.storage.recording import LEDGER_COLUMNS
from smtpguard.storage.sightings import upsert_bindings
from smtpguard.storage.tables import UtcDateTime, addresses, ledger

_DIALECT: Any = make_url("postgresql+psycopg://").get_dialect()
_NUMBERED: Dialect = _DIALECT(paramstyle="numeric_dollar")
"""The dialect, with parameters as the server itself takes them."""


class Command(NamedTuple):
    """A prepared statement, and its parameters as the server takes them."""

    name: bytes
    parameters: Sequence[bytes]


class Statement:
    """A statement that a connection prepares under its name."""

    def __init__(self, name: str, statement: ClauseElement) -> None:
        compiled: Any = statement.compile(dialect=_NUMBERED)
        self.name = name.encode()
        self.preparation = f"PREPARE {name} AS {compiled}".encode()
        self._parameters: Sequence[str] = compiled.positiontup

    def given(self, arrays: Mapping[str, bytes]) -> Command:
        """Return it with its parameters, which come by name."""
        return Command(self.name, [arrays[name] for name in self._parameters])


def array(items: Iterable[str | None]) -> bytes:
    """Write an array as PostgreSQL reads it; from a list the driver makes the same in many times as long."""
    text = "{" + ",".join("NULL" if item is None else _quoted(item) for item in items) + "}"
    if "\0" in text:  # it would end the parameter
        raise psycopg.DataError("PostgreSQL cannot store a NUL character in a text")
    return text.encode()


def _quoted(item: str) -> str:
    escaped = item.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _rows_of(name: str, kinds: dict[str, Any], *, with_ordinality: str | None = None) -> Any:
    """Rows that come as one array a column, each array under the name of its column."""
    arrays = [bindparam(column_name, type_=postgresql.ARRAY(kind)) for column_name, kind in kinds.items()]
    columns: list[Any] = [column(column_name, kind) for column_name, kind in kinds.items()]
    return func.unnest(*arrays).table_valued(*columns, with_ordinality=with_ordinality).render_derived(name=name)


def _look_ups() -> ClauseElement:
    """The look-ups of a batch; the facts come with the position of their question."""
    kinds = {"lookup_key": Text(), "customer": Text(), "now": UtcDateTime()}
    asked = _rows_of("asked", kinds, with_ordinality="position")
    known = asked.join(addresses, addresses.c.lookup_key == asked.c.lookup_key)
    facts = fact_columns(func.nullif(asked.c.customer, literal_column("''")), asked.c.now)
    return select(asked.c.position, *facts).select_from(known)


def _ledger_rows() -> ClauseElement:
    recorded = _rows_of("recorded", {each.name: _kind(each) for each in LEDGER_COLUMNS})
    return insert(ledger).from_select(LEDGER_COLUMNS, select(recorded))


def _kind(of: Column[Any]) -> TypeEngine[Any]:
    return of.type if isinstance(of.type, UtcDateTime) else Text()


def _known_addresses() -> ClauseElement:
    """Give a number to addresses that have none, as ``sightings`` does; by the order of the arrays, like the next."""
    seen = _seen()
    unknown = select(seen.c.key, seen.c.key).where(_address_id(seen).is_(None))
    known = insert_into(_NUMBERED, addresses).from_select(["lookup_key", "address"], unknown)
    return known.on_conflict_do_nothing(index_elements=[addresses.c.lookup_key])


def _seen_bindings() -> ClauseElement:
    seen = _seen()
    pairs = select(_address_id(seen), seen.c.customer, seen.c.at, seen.c.at)
    return upsert_bindings(_NUMBERED).from_select(["address_id", "customer", "first_seen", "last_seen"], pairs)


def _seen() -> Any:
    return _rows_of("seen", {"key": Text(), "customer": Text(), "at": UtcDateTime()})


def _address_id(seen: Any) -> Any:
    return select(addresses.c.id).where(addresses.c.lookup_key == seen.c.key).scalar_subquery()


LOOK_UPS = Statement("look_ups", _look_ups())
LEDGER_ROWS = Statement("ledger_rows", _ledger_rows())
KNOWN_ADDRESSES = Statement("known_addresses", _known_addresses())
SEEN_BINDINGS = Statement("seen_bindings", _seen_bindings())
READING = (LOOK_UPS,)
WRITING = (LEDGER_ROWS, KNOWN_ADDRESSES, SEEN_BINDINGS)
