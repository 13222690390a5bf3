"""Stores with many addresses: made once by the guard's own commands, kept, and copied for each run.

A copy is fresh: no run sees what another one has left. What is kept carries in its name a fingerprint of the
migrations and of the list of addresses; where either changes it is made anew.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.loads import VERIFIED
from benchmarks.postfix import build_map, map_type
from benchmarks.postgres import Postgres
from benchmarks.processes import SMTPGUARD, Ended, run_command

ENGINES = ("sqlite", "postgresql")
MIGRATIONS = Path(__file__).parents[1] / "migrations" / "versions"
FINGERPRINT_DIGITS = 12


class SqliteStores:
    """SQLite files."""

    def __init__(self, kept: Path, scratch: Path) -> None:
        self._kept = kept
        self._scratch = scratch
        self._numbers = count(1)

    @contextmanager
    def empty(self) -> Iterator[str]:
        """Give the URL of a store that is not there yet, for as long as the block."""
        file = self._scratch / f"store-{next(self._numbers)}.db"
        try:
            yield f"sqlite:///{file}"
        finally:
            _remove(self._scratch.glob(f"{file.name}*"))

    @contextmanager
    def copy(self, addresses: int) -> Iterator[str]:
        """Give the URL of a store with so many addresses, for as long as the block."""
        kept = self._with(addresses)
        with self.empty() as url:
            shutil.copyfile(kept, url.removeprefix("sqlite:///"))
            yield url

    def _with(self, addresses: int) -> Path:
        kept = self._kept / f"sqlite-{addresses}-{fingerprint()}.db"
        if not kept.exists():
            _remove(self._kept.glob(f"sqlite-{addresses}-*"))
            unfinished = kept.with_suffix(".unfinished")
            fill(f"sqlite:///{unfinished}", addresses, self._scratch)
            unfinished.rename(kept)
        return kept


class PostgresStores:
    """Databases of one PostgreSQL server."""

    def __init__(self, server: Postgres, scratch: Path) -> None:
        self.server = server
        self._scratch = scratch
        self._numbers = count(1)

    @contextmanager
    def empty(self) -> Iterator[str]:
        """Give the URL of an empty database, for as long as the block."""
        with self._database("template1") as name:
            yield self.server.url(name)

    @contextmanager
    def copy(self, addresses: int) -> Iterator[str]:
        """Give the URL of a store with so many addresses, for as long as the block."""
        with self._database(self._with(addresses)) as name:
            yield self.server.url(name)

    @contextmanager
    def _database(self, template: str) -> Iterator[str]:
        name = f"run_{next(self._numbers)}"
        self.server.drop(name)
        self.server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield name
        finally:
            self.server.drop(name)

    def _with(self, addresses: int) -> str:
        prefix = f"addresses_{addresses}_"
        kept = f"{prefix}{fingerprint()}"
        if kept not in self.server.databases():
            for stale in self.server.databases():
                if stale.startswith(prefix):
                    self.server.drop(stale)
            with self._database("template1") as unfinished:
                fill(self.server.url(unfinished), addresses, self._scratch)
                self.server.execute("VACUUM (ANALYZE)", database=unfinished)  # which would come in the midst of a run
                self.server.execute(f"ALTER DATABASE {unfinished} RENAME TO {kept}")
        return kept


EngineStores = SqliteStores | PostgresStores


def fill(url: str, addresses: int, scratch: Path) -> Ended:
    """Make a store, import so many verified addresses with the guard's command, and return what the import took."""
    settings, rows = scratch / "fill.toml", scratch / "addresses.csv"
    settings.write_text(f'[store]\nurl = "{url}"\n', encoding="utf-8")
    _write_addresses(rows, addresses, head="address,standing\n", line="{},verified\n")
    run_command([*SMTPGUARD, "-c", settings, "db", "upgrade"])
    imported = run_command([*SMTPGUARD, "-c", settings, "address", "import", rows])
    rows.unlink()
    return imported


def postfix_map(kept: Path, addresses: int) -> str:
    """Return the map of Postfix with so many addresses, as its settings name it; make it where there is none."""
    directory = kept / f"map-{addresses}-{fingerprint()}"
    if not directory.exists():
        for stale in kept.glob(f"map-{addresses}-*"):
            shutil.rmtree(stale)
        unfinished = directory.with_suffix(".unfinished")
        unfinished.mkdir()
        _write_addresses(unfinished / "verified", addresses, head="", line="{} OK\n")
        build_map(unfinished / "verified")
        unfinished.rename(directory)
    return f"{map_type()}:{directory / 'verified'}"


def fingerprint() -> str:
    """Return a digest of what a kept store depends on."""
    digest = hashlib.sha256(VERIFIED.encode())
    for migration in sorted(MIGRATIONS.glob("*.py")):
        digest.update(migration.read_bytes())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def _write_addresses(file: Path, addresses: int, *, head: str, line: str) -> None:
    with file.open("w", encoding="ascii") as rows:
        rows.write(head)
        rows.writelines(line.format(f"{number}{VERIFIED}") for number in range(1, addresses + 1))


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink()
