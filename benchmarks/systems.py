"""The systems that are measured: each stands up on loopback, before the same smtp-sink, for as long as a block."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks import postfix
from benchmarks.processes import SMTPGUARD, free_port, run_command, running
from benchmarks.sink import Sink
from benchmarks.stores import EngineStores, PostgresStores, postfix_map

DIRECT, POSTFIX, HOLD, GUARD = "direct", "postfix", "postfix-hold", "guard"
TITLES = {
    DIRECT: "no system",
    POSTFIX: "Postfix proxy filter",
    HOLD: "Postfix, HOLD",
    "guard-sqlite": "guard, SQLite",
    "guard-postgresql": "guard, PostgreSQL",
}

GUARD_SETTINGS = """
[smtp]
listen = "127.0.0.1:{port}"
hostname = "guard.example.com"
max_sessions = 2000
max_sessions_per_network = 2000
workers = {workers}
[smarthost]
port = {sink_port}
[store]
url = "{url}"
[web]
listen = "127.0.0.1:0"
"""


@dataclass(frozen=True)
class Wanted:
    """Which system: of the guard with its engine and its number of workers."""

    kind: str
    engine: str = ""
    workers: int = 1

    @property
    def name(self) -> str:
        """What it is called in results: ``guard-sqlite``, ``guard-sqlite-2``."""
        workers = str(self.workers) if self.workers > 1 else ""
        return "-".join(filter(None, (self.kind, self.engine, workers)))


@dataclass(frozen=True)
class System:
    """A system that runs. ``pids``: the roots of its processes; ``store_pids``: those of a store server beside it."""

    name: str
    port: int
    pids: tuple[int, ...] = ()
    store_pids: tuple[int, ...] = ()
    kept: Callable[[], int] = lambda: 0
    """Counts the messages that it keeps back."""


@dataclass(frozen=True)
class Ground:
    """What systems stand on: a work directory, a sink, and stores."""

    kept: Path
    scratch: Path
    sink: Sink
    stores: Mapping[str, EngineStores]
    numbers: "count[int]"

    @contextmanager
    def system(self, wanted: Wanted, addresses: int) -> Iterator[System]:
        """Run a system that knows so many addresses."""
        match wanted.kind:
            case "direct":
                yield System(wanted.name, self.sink.port)
            case "guard":
                with self.stores[wanted.engine].copy(addresses) as url, self.guard(wanted, url) as system:
                    yield system
            case _:
                flavour = postfix.HOLD if wanted.kind == HOLD else postfix.PROXY_FILTER
                with self.postfix(flavour, addresses) as instance:
                    yield System(wanted.name, instance.port, (instance.pid,), kept=instance.held)

    @contextmanager
    def postfix(self, flavour: str, addresses: int) -> Iterator[postfix.Postfix]:
        """Run a Postfix that knows so many addresses."""
        home = self.scratch / f"postfix-{next(self.numbers)}"
        map_name = postfix_map(self.kept, addresses)
        with postfix.running_postfix(home, flavour, map_name=map_name, sink_port=self.sink.port) as instance:
            yield instance

    @contextmanager
    def guard(self, wanted: Wanted, url: str) -> Iterator[System]:
        """Run the guard on a store."""
        port = free_port()
        settings = self.guard_settings(wanted, url, port=port)
        log = settings.with_suffix(".log")
        stores = self.stores[wanted.engine]
        store_pids = (stores.server.pid,) if isinstance(stores, PostgresStores) else ()
        with running([*SMTPGUARD, "serve", "-c", settings], log=log, port=port) as pid:
            yield System(wanted.name, port, (pid,), store_pids, kept=lambda: len(waiting(settings)))

    def guard_settings(self, wanted: Wanted, url: str, *, port: int) -> Path:
        """Write a settings file of the guard: all as it comes, but for ports, the store and the limits of sessions."""
        file = self.scratch / f"{wanted.name}-{next(self.numbers)}.toml"
        text = GUARD_SETTINGS.format(port=port, sink_port=self.sink.port, url=url, workers=wanted.workers)
        file.write_text(text, encoding="utf-8")
        return file


def title(system: str) -> str:
    """Return what a system is called in a document: ``guard-sqlite-2`` is the guard on SQLite with two workers."""
    name = with_one_worker(system)
    return TITLES.get(name, name) + (f", {system.rpartition('-')[2]} workers" if name != system else "")


def with_one_worker(system: str) -> str:
    """Return the name of the same system with one worker."""
    return re.sub(r"-[0-9]+$", "", system)


def waiting(settings: Path) -> list[str]:
    """Return the ids of all messages in quarantine, as the operator's command lists them."""
    listing = run_command([*SMTPGUARD, "-c", settings, "quarantine", "list", "--json", "--limit", "0"])
    return [json.loads(line)["id"] for line in listing.out.splitlines()]
