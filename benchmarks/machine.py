"""What the figures were measured on, and what could not take part."""

import os
import platform
import sqlite3
import timeit
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import postfix
from benchmarks.processes import BenchmarkError, run_command
from benchmarks.stores import EngineStores, PostgresStores
from smtpguard import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("aiosmtpd", "uvloop", "sqlalchemy", "psycopg")
KIB_A_GIB = 1024**2


def describe(work: Path, stores: Mapping[str, EngineStores]) -> dict[str, str]:
    """Return the machine, the versions and the state of the code, each as a line; empty: it took no part."""
    return {
        "date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "commit": _commit(),
        "processor": f"{_first(Path('/proc/cpuinfo'), 'model name')}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{int(_first(Path('/proc/meminfo'), 'MemTotal').split()[0]) / KIB_A_GIB:.0f} GiB",
        "system": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}",
        "file system of the stores": _file_system(work),
        "Python": ", ".join([f"{platform.python_version()}, smtpguard {__version__}", *map(_versioned, PACKAGES)]),
        "a million calls in Python": f"{_seconds_of_calls():.3f} s",
        "SQLite": sqlite3.sqlite_version,
        "PostgreSQL": ", ".join(_server_version(each) for each in stores.values() if isinstance(each, PostgresStores)),
        "Postfix": "" if postfix.obstacle() else _postfix_version(),
    }


def _versioned(package: str) -> str:
    return f"{package} {version(package)}"


def _commit() -> str:
    try:
        commit = run_command(["git", "-C", ROOT, "log", "-1", "--format=%h of %cs"]).out.strip()
        changes = run_command(["git", "-C", ROOT, "status", "--porcelain"]).out
    except (BenchmarkError, OSError):
        return "unknown"
    return f"{commit}, with changes" if changes else commit


def _seconds_of_calls() -> float:
    """Return how long the interpreter takes for a million calls: those built without optimisation are much slower."""
    return min(timeit.repeat("call(1)", setup="def call(number): return number + 1", number=1_000_000, repeat=3))


def _first(file: Path, name: str) -> str:
    """Return what stands behind the first ``name:`` of a file under /proc."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")


def _file_system(directory: Path) -> str:
    """Return the kind of file system that a directory lies in (proc(5), mountinfo)."""
    kinds = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kinds[Path(before.split()[4])] = after.split()[0]
    return next(kinds[place] for place in (directory, *directory.parents) if place in kinds)


def _server_version(stores: PostgresStores) -> str:
    [(text,)] = stores.server.execute("SHOW server_version")
    return f"{text}, its settings as they come"


def _postfix_version() -> str:
    return f"{postfix.run_tool('postconf', '-dh', 'mail_version').strip()}, {postfix.map_type()} map"
