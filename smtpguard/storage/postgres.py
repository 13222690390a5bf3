"""PostgreSQL: connections and transactions.

The URL goes to libpq as it is: several hosts, TLS and service files are libpq's. Every wait has an end, on the server's
side and on ours.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, func, select
from sqlalchemy.exc import DisconnectionError

from smtpguard.errors import StoreUnavailable
from smtpguard.storage.postgres_channel import Channel
from smtpguard.storage.postgres_connection import PromptConnection, is_stale
from smtpguard.storage.postgres_hot_path import LOOKUP_SECONDS, PostgresHotPath
from smtpguard.storage.postgres_statements import READING, WRITING
from smtpguard.storage.recording import Detour

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
_DURABLE_COMMITS = frozenset({"on", "remote_apply", "remote_write", "local"})


@dataclass(frozen=True, slots=True)
class Manner:
    """How a connection behaves: settings of the server for it, and how long we wait for one answer."""

    settings: Mapping[str, str]
    answer_seconds: float


WORK = Manner(_SETTINGS, answer_seconds=25)
UPGRADE = Manner(_SETTINGS | {"statement_timeout": "0", "lock_timeout": "0"}, answer_seconds=math.inf)
_PROMPT_SETTINGS = _SETTINGS | {
    "plan_cache_mode": "force_generic_plan",  # planning costs as much as looking up
    "enable_seqscan": "off",  # the plan may be made while the tables are empty, and stays
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
LOOK_UP = Manner(
    _PROMPT_SETTINGS | {"default_transaction_read_only": "on", "statement_timeout": f"{LOOKUP_SECONDS}s"},
    answer_seconds=LOOKUP_SECONDS,
)
RECORD = Manner(_PROMPT_SETTINGS | {"synchronous_commit": "off"}, answer_seconds=25)


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

    async def hot_path(self, detour: Detour) -> PostgresHotPath:
        """Open the hot path; it connects when it is asked, and needs no detour."""
        del detour
        return PostgresHotPath(
            look_ups=Channel(lambda: self.connect(LOOK_UP), READING, answer_seconds=LOOK_UP.answer_seconds),
            recordings=Channel(lambda: self.connect(RECORD), WRITING, answer_seconds=RECORD.answer_seconds),
        )

    def connect(self, manner: Manner) -> PromptConnection:
        """Connect; raises the driver's errors."""
        connection = PromptConnection.connect(**self._parameters)
        connection.answer_seconds = manner.answer_seconds
        try:
            connection.execute(_SET_DURABLE)
            connection.execute(_SET, (list(manner.settings), list(manner.settings.values())))
            connection.commit()
        except psycopg.Error:
            connection.close()
            raise
        return connection


def _refuse_stale(driver_connection: PromptConnection, *_: object) -> None:
    """Let the pool connect anew where the server has hung up meanwhile."""
    if is_stale(driver_connection):
        raise DisconnectionError
