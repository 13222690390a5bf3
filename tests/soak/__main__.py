"""The long campaign: ``python -m tests.soak [--seconds N] [--seed N] [--engine ENGINE]``; see ``make soak``.

It ends with exit code 1 where something happened that should not have, and keeps its directory then: the history, the
journal of the smarthost, the guard's log, the SQLite store.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.soak.campaign import Plan, Report, run_campaign
from tests.soak.checker import violations
from tests.support.databases import PostgresServer, new_sqlite_store, new_sqlite_template, postgres_server

ENGINES = ("sqlite", "postgresql")
APPLICATIONS = 12
MAX_SHOWN = 20


def main() -> int:
    """Run it, on one engine after the other, and tell what came of it."""
    arguments = _arguments()
    print(f"soak: {arguments.seconds} s, SEED={arguments.seed}", flush=True)
    seconds = arguments.seconds / len(arguments.engine)
    clean = [_soak(engine, seconds, arguments.seed) for engine in arguments.engine]
    return 0 if all(clean) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="in all")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the dice; else a random one")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="one only")
    arguments = parser.parse_args()
    arguments.engine = arguments.engine or ENGINES
    return arguments


def _soak(engine: str, seconds: float, seed: int) -> bool:
    directory = Path(tempfile.mkdtemp(prefix=f"smtpguard-soak-{engine}-"))
    print(f"{engine}: in {directory}", flush=True)
    plan = Plan(seed, APPLICATIONS, messages=0, nemesis=lambda nemesis: nemesis.rage(seconds))
    with _store(engine, directory) as (url, server):
        report = asyncio.run(run_campaign(plan, url, directory, server=server))
    clean = _tell(report)
    if clean:
        shutil.rmtree(directory)
    return clean


@contextmanager
def _store(engine: str, directory: Path) -> Iterator[tuple[str, PostgresServer | None]]:
    if engine == "sqlite":
        yield new_sqlite_store(directory, new_sqlite_template(directory)), None
        return
    with postgres_server() as server:
        yield server.new_store(), server


def _tell(report: Report) -> bool:
    """Print what came of it; return whether nothing is wrong."""
    wrong = violations(report.history)
    for name, count in report.summary.items():
        print(f"  {count:>8}  {name}")
    print(f"  {len(wrong):>8}  violations", flush=True)
    for violation in wrong[:MAX_SHOWN]:
        print(f"  {violation}", flush=True)
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
