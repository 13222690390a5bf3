"""The work directory: one benchmark at a time in it, what it keeps between runs, and what goes with the run."""

import fcntl
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from benchmarks.postgres import running_postgres
from benchmarks.processes import BenchmarkError
from benchmarks.sink import running_sink
from benchmarks.stores import EngineStores, PostgresStores, SqliteStores
from benchmarks.systems import Ground


@contextmanager
def prepared_ground(work: Path, engines: Sequence[str], *, fresh: bool) -> Iterator[Ground]:
    """Give the ground to measure on; ``fresh``: make anew what was kept. Raises BenchmarkError where it is in use.

    What a run writes beside its results, logs and settings, stays until the next one.
    """
    work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        _lock(stack, work)
        _allow_many_files()
        kept, scratch = work / "kept", work / "scratch"
        for directory in [scratch, *([kept] if fresh else [])]:
            shutil.rmtree(directory, ignore_errors=True)
        for directory in (kept, scratch):
            directory.mkdir(exist_ok=True)
        stores: dict[str, EngineStores] = {}
        if "sqlite" in engines:
            stores["sqlite"] = SqliteStores(kept, scratch)
        if "postgresql" in engines:
            stores["postgresql"] = PostgresStores(stack.enter_context(running_postgres(kept / "postgresql")), scratch)
        yield Ground(kept, scratch, stack.enter_context(running_sink(scratch)), stores, count(1))


def _lock(stack: ExitStack, work: Path) -> None:
    file = stack.enter_context((work / "lock").open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise BenchmarkError(f"another benchmark runs in {work}") from error


def _allow_many_files() -> None:
    """A thousand sessions want more than the usual 1024; what is started here inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
