"""PostgreSQL: connections, transactions and look-ups.

The URL goes to libpq as it is: several hosts, TLS and service files are libpq's. Every wait has an end, on the server's
side and on ours. Look-ups that arrive together are one statement, on a connection and a thread of their own.
"""

import math
import select as system_select
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from time import monotonic
from typing import Any, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from sqlalchemy import (
    Connection,
    Engine,
    QueuePool,
    Text,
    bindparam,
    column,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DisconnectionError

from smtpguard.domain.standing import NOTHING_ON_RECORD, AddressFacts
from smtpguard.errors import StoreUnavailable
from smtpguard.storage.driver_errors import as_store_error
from smtpguard.storage.facts import fact_columns, facts_of
from smtpguard.storage.line import Line, LineFailed
from smtpguard.storage.tables import UtcDateTime, addresses

LOOKUP_SECONDS = 5
"""How long a look-up may take in all; after that the store is unavailable."""
CONNECTION_DEFAULTS = {
    "application_name": "smtpguard",
    "client_encoding": "utf8",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""Where the URL does not say otherwise."""
_SETTINGS = {
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",  # the audit chain's lock is followed by a new snapshot
    "statement_timeout": "20s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "60s",  # frees the locks of a guard that is gone
}
SCHEMA_LOCK = 0x736D_7470_0001
_SET = "SELECT set_config(name, setting, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, setting)"
_SET_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
_DIALECT = make_url("postgresql+psycopg://").get_dialect()()
_DURABLE_COMMITS = frozenset({"on", "remote_apply", "remote_write", "local"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a connection behaves: settings of the server for it, and how long we wait for one answer."""

    settings: Mapping[str, str]
    answer_seconds: float


WORK = Manner(_SETTINGS, answer_seconds=25)
UPGRADE = Manner(_SETTINGS | {"statement_timeout": "0", "lock_timeout": "0"}, answer_seconds=math.inf)
LOOK_UP = Manner(
    _SETTINGS
    | {
        "default_transaction_read_only": "on",
        "statement_timeout": f"{LOOKUP_SECONDS}s",
        "plan_cache_mode": "force_generic_plan",  # planning costs as much as looking up
        "enable_seqscan": "off",  # the plan may be made while the tables are empty, and stays
        "enable_bitmapscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "jit": "off",
    },
    answer_seconds=LOOKUP_SECONDS,
)


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


class PostgresDatabase:
    """A database on a server; see ``database.Database``."""

    is_embedded = False
    exists = True

    def __init__(self, url: str) -> None:
        try:
            self._parameters: dict[str, Any] = CONNECTION_DEFAULTS | conninfo_to_dict(url)
        except psycopg.Error:  # whose text may quote the password
            raise StoreUnavailable("the URL of the store is not a PostgreSQL connection URI") from None

    def create(self) -> None:
        """Nothing to do: the database is the administrator's to make."""

    def engine(self, *, connections: int, patient: bool = False) -> Engine:
        """Make an engine; a patient one waits for locks as long as it takes."""
        manner = UPGRADE if patient else WORK
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: self.connect(manner),
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,  # an error goes to the log, and they may be somebody's mail
            use_native_hstore=False,
        )
        event.listen(engine, "checkout", _refuse_stale)
        return engine

    def begin(self, connection: Connection, *, durable: bool) -> None:
        """Begin; a relaxed commit does not wait for the server's disk."""
        connection.begin()
        if not durable:
            connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")

    def durability_problem(self, connection: Connection) -> str | None:
        """Read back whether a commit waits for the server's disk."""
        names = ("synchronous_commit", "fsync")
        commit, fsync = connection.execute(select(*map(func.current_setting, names))).one()
        if commit in _DURABLE_COMMITS and fsync == "on":
            return None
        return f"the PostgreSQL server is not durable: synchronous_commit is {commit}, fsync is {fsync}"

    def lock_schema(self, connection: Connection) -> None:
        """Take the advisory lock of upgrades."""
        connection.execute(select(func.pg_advisory_xact_lock(SCHEMA_LOCK)))

    async def reader(self) -> "PostgresReader":
        """Open the reader; it connects when it is asked."""
        return PostgresReader(self)

    def connect(self, manner: Manner) -> PromptConnection:
        """Connect; raises the driver's errors."""
        connection = PromptConnection.connect(**self._parameters)
        connection.answer_seconds = manner.answer_seconds
        try:
            connection.execute(_SET, (list(manner.settings), list(manner.settings.values())))
            connection.execute(_SET_DURABLE)
            connection.commit()
        except psycopg.Error:
            connection.close()
            raise
        return connection


@dataclass(frozen=True, slots=True)
class _Question:
    """One look-up: some addresses, for one customer ('' for none), at one time."""

    lookup_keys: Sequence[str]
    customer: str
    now: datetime


class PostgresReader:
    """Look-ups of all sessions, those that arrive together as one statement."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._connection: PromptConnection | None = None
        self._line = Line("smtpguard-lookups", self._look_up)

    async def facts(self, lookup_keys: Sequence[str], *, customer: str, now: datetime) -> dict[str, AddressFacts]:
        """Return the facts of every key."""
        try:
            facts = await self._line.ask(_Question(lookup_keys, customer, now), seconds=LOOKUP_SECONDS)
        except TimeoutError:
            raise StoreUnavailable(f"the store did not answer a look-up within {LOOKUP_SECONDS} s") from None
        return dict(zip(lookup_keys, facts, strict=True))

    async def close(self) -> None:
        """Answer who waits, and disconnect."""
        await self._line.close()
        self._disconnect()

    def _look_up(self, questions: Sequence[_Question]) -> list[list[AddressFacts]]:
        try:
            rows = self._connected().execute(_STATEMENT, _arrays(questions), prepare=True).fetchall()
        except psycopg.Error as error:
            problem = as_store_error(error)
            if problem is None:
                raise
            self._disconnect()
            raise LineFailed(str(problem)) from error
        found = {position: facts_of(facts) for position, *facts in rows}
        positions = count(1)  # WITH ORDINALITY counts from 1
        return [[found.get(next(positions), NOTHING_ON_RECORD) for _ in question.lookup_keys] for question in questions]

    def _connected(self) -> PromptConnection:
        if self._connection is not None and _is_stale(self._connection):
            self._disconnect()
        if self._connection is None:
            self._connection = self._database.connect(LOOK_UP)
            self._connection.autocommit = True
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _look_up_statement() -> str:
    """Compile the look-ups of a batch: (key, customer, time) in three arrays, facts with the position in these."""
    arrays = [
        bindparam("lookup_keys", type_=postgresql.ARRAY(Text)),
        bindparam("customers", type_=postgresql.ARRAY(Text)),
        bindparam("moments", type_=postgresql.ARRAY(UtcDateTime)),
    ]
    columns: list[Any] = [column("lookup_key", Text), column("customer", Text), column("now", UtcDateTime)]
    asked = func.unnest(*arrays).table_valued(*columns, with_ordinality="position").render_derived(name="asked")
    known = asked.join(addresses, addresses.c.lookup_key == asked.c.lookup_key)
    facts = fact_columns(asked.c.customer, asked.c.now)
    return str(select(asked.c.position, *facts).select_from(known).compile(dialect=_DIALECT))


_STATEMENT = _look_up_statement().encode()


def _arrays(questions: Sequence[_Question]) -> dict[str, list[Any]]:
    return {
        "lookup_keys": [lookup_key for question in questions for lookup_key in question.lookup_keys],
        "customers": [question.customer for question in questions for _ in question.lookup_keys],
        "moments": [question.now for question in questions for _ in question.lookup_keys],
    }


def _refuse_stale(driver_connection: PromptConnection, *_: object) -> None:
    """Let the pool connect anew where the server has hung up meanwhile."""
    if _is_stale(driver_connection):
        raise DisconnectionError


def _is_stale(connection: PromptConnection) -> bool:
    """Whether it has something to read although nothing was asked: that is the server's farewell."""
    if connection.closed:
        return True
    poll = system_select.poll()
    poll.register(connection.fileno(), system_select.POLLIN)
    return bool(poll.poll(0))
