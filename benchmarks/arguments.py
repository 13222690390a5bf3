"""The command line of the benchmark: the whole, or a part of it."""

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.loads import CELL_NAMES, cell
from benchmarks.series import QUICK, SERIES, Plan
from benchmarks.stores import ENGINES
from benchmarks.systems import DIRECT, GUARD, POSTFIX
from benchmarks.throughput import Pace

SYSTEMS = (DIRECT, POSTFIX, GUARD)
WORK_VARIABLE = "BENCH_WORK"
DEFAULT_WORK = "/var/tmp/smtpguard-benchmarks"  # noqa: S108 - Postfix and PostgreSQL run as users who must reach it
TEN_MILLION = 10_000_000


@dataclass(frozen=True)
class Arguments:
    """What was asked for. ``is_whole``: everything, as the documents show it."""

    plan: Plan
    series: tuple[str, ...]
    work: Path
    fresh: bool
    is_whole: bool
    report: tuple[Path, ...]
    """Results to write into the documents; nothing is measured then."""


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Read the command line; ends the process with exit code 2 where it cannot be understood."""
    given = _parser().parse_args(words)
    base = QUICK if given.quick else Plan()
    plan = replace(
        base,
        cells=tuple(map(cell, given.cells)) if given.cells else base.cells,
        systems=given.systems or base.systems,
        engines=given.engines or base.engines,
        addresses=given.addresses or base.addresses,
        pace=Pace(given.seconds or base.pace.seconds, given.rounds or base.pace.rounds),
        address_counts=(*base.address_counts, TEN_MILLION) if given.ten_million else base.address_counts,
    )
    part = (given.quick, given.series, given.cells, given.systems, given.engines, given.addresses, given.seconds)
    series = given.series or (("cells",) if given.cells else tuple(SERIES))
    return Arguments(plan, series, given.work, given.fresh, not any(part), tuple(given.report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the guard beside Postfix and beside no system. Without options: everything, in about 45 "
        "minutes, and into docs/benchmarks.md and README.md with it.",
    )
    parser.add_argument("--quick", action="store_true", help="all in small, to see that it works")
    parser.add_argument("--series", type=_list_of(SERIES), metavar="LIST", help=f"only these: {', '.join(SERIES)}")
    parser.add_argument(
        "--cells", type=_list_of(CELL_NAMES), metavar="LIST", help="only these cells; no other series without --series"
    )
    parser.add_argument("--systems", type=_list_of(SYSTEMS), metavar="LIST", help=f"only these: {', '.join(SYSTEMS)}")
    parser.add_argument("--engines", type=_list_of(ENGINES), metavar="LIST", help=f"only these: {', '.join(ENGINES)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each is measured (3)")
    parser.add_argument("--seconds", type=float, metavar="N", help="how long one measurement is about (2)")
    parser.add_argument("--addresses", type=int, metavar="N", help="how many are verified (1,000,000)")
    parser.add_argument("--ten-million", action="store_true", help="also measure with 10,000,000 addresses")
    parser.add_argument("--fresh", action="store_true", help="make the stores anew")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get(WORK_VARIABLE, DEFAULT_WORK)),
        help=f"where stores and results are kept (${WORK_VARIABLE}, else {DEFAULT_WORK})",
    )
    parser.add_argument(
        "--report",
        type=Path,
        nargs="+",
        metavar="RESULTS",
        default=[],
        help="measure nothing: write these results into the documents; of a series that several have, the last counts",
    )
    return parser


def _list_of(names: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Return what reads a list with commas of some of these names."""

    def parse(text: str) -> tuple[str, ...]:
        wanted = tuple(text.split(","))
        if unknown := [each for each in wanted if each not in names]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(names)}")
        return wanted

    return parse
