"""What is measured: the cells, and how throughput and memory go with addresses, sessions, sizes and the rest."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from benchmarks.latency import measure_latency
from benchmarks.loads import CELLS, STRANGER, Load, cell
from benchmarks.processes import BenchmarkError
from benchmarks.release import measure_release
from benchmarks.results import RATE, Measurement
from benchmarks.stores import ENGINES, fill
from benchmarks.systems import DIRECT, GUARD, HOLD, POSTFIX, Ground, System, Wanted
from benchmarks.throughput import Contest, Pace

KEPT_BACK = (
    Load("q1", sessions=1, keeps=True, to=STRANGER, fewest=100),
    Load("q10", sessions=10, keeps=True, to=STRANGER),
)
SIZES = {
    4096: "4 KiB",
    65_536: "64 KiB",
    1_000_000: "1 MB",
    10_000_000: "10 MB",
    25_000_000: "25 MB",
}
OCTETS_A_RUN = 80_000_000
"""At least, where messages are big."""


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    cells: tuple[Load, ...] = CELLS
    systems: tuple[str, ...] = (DIRECT, POSTFIX, GUARD)
    engines: tuple[str, ...] = ENGINES
    addresses: int = 1_000_000
    pace: Pace = field(default_factory=Pace)
    address_counts: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    session_counts: tuple[int, ...] = (1, 10, 100, 1000)
    sizes: tuple[int, ...] = tuple(SIZES)
    recipient_counts: tuple[int, ...] = (1, 10, 100, 1000)
    rates: tuple[int, ...] = (100, 500, 1000)
    rate_seconds: float = 5.0
    released: int = 100_000
    imported: int = 1_000_000

    def without(self, system: str) -> "Plan":
        """Return the plan without a system."""
        return replace(self, systems=tuple(each for each in self.systems if each != system))

    @property
    def guards(self) -> list[Wanted]:
        """The guard, once for each engine."""
        return [Wanted(GUARD, engine) for engine in self.engines] if GUARD in self.systems else []

    @property
    def all(self) -> list[Wanted]:
        """Every system; those that are no guard come first."""
        return [Wanted(kind) for kind in (DIRECT, POSTFIX) if kind in self.systems] + self.guards

    @property
    def holding(self) -> list[Wanted]:
        """The systems that keep mail back."""
        return ([Wanted(HOLD)] if POSTFIX in self.systems else []) + self.guards


QUICK = Plan(
    cells=tuple(cell(name) for name in ("c10", "k10", "r10", "m1")),
    addresses=10_000,
    pace=Pace(seconds=0.5, rounds=1),
    address_counts=(1000, 10_000),
    session_counts=(1, 10),
    sizes=(4096, 1_000_000),
    recipient_counts=(1, 10),
    rates=(100,),
    rate_seconds=2.0,
    released=200,
    imported=10_000,
)
"""Some minutes, to see that all of it works; its figures say nothing."""


def _cells(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    return _contest("cells", plan.all, plan.cells, plan, ground)


def _addresses(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    for addresses in plan.address_counts:
        load = replace(cell("k10"), name=f"{addresses:,}")
        yield from _contest("addresses", plan.without(DIRECT).all, [load], replace(plan, addresses=addresses), ground)


def _sessions(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    loads = [
        Load(f"{sessions:,}", sessions=sessions, keeps=True, fewest=max(200, 4 * sessions))
        for sessions in plan.session_counts
    ]
    return _contest("sessions", plan.all, loads, plan, ground)


def _sizes(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    loads = [
        Load(SIZES[octets], sessions=4, octets=octets, keeps=True, fewest=min(200, max(4, OCTETS_A_RUN // octets)))
        for octets in plan.sizes
    ]
    return _contest("sizes", plan.all, loads, plan, ground)


def _recipients(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    loads = [
        Load(f"{recipients:,}", sessions=10, recipients=recipients, keeps=True, fewest=max(10, 200 // recipients))
        for recipients in plan.recipient_counts
    ]
    return _contest("recipients", plan.all, loads, plan, ground)


def _workers(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    peers = [Wanted(POSTFIX)] if POSTFIX in plan.systems else []  # which has a process for each session
    guards = [replace(guard, workers=workers) for guard in plan.guards for workers in (1, 2)]
    return _contest("workers", peers + guards, [cell(name) for name in ("c10", "k10", "k50", "r10")], plan, ground)


def _quarantine(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    return _contest("quarantine", plan.holding, KEPT_BACK, plan, ground)


def _latency(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    with _standing(plan.all, plan.addresses, ground) as (systems, fallen):
        yield from measure_latency(systems, plan.rates, seconds=plan.rate_seconds, rounds=plan.pace.rounds)
        for wanted, failure in fallen:
            yield Measurement("latency", "start", wanted.name, 0, failure=failure)


def _release(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    for guard in plan.guards[:1]:  # one engine: it takes long
        yield measure_release(ground, guard, plan.released)


def _import(plan: Plan, ground: Ground) -> Iterator[Measurement]:
    for guard in plan.guards:
        measurement = Measurement(
            "import", f"{plan.imported:,}", guard.name, 0, command="smtpguard address import addresses.csv"
        )
        with ground.stores[guard.engine].empty() as url:
            took = fill(url, plan.imported, ground.scratch)
        yield measurement.with_figures(
            {"seconds": took.seconds, RATE: plan.imported / took.seconds, "peak": took.peak_mib}
        )


SERIES: dict[str, Callable[[Plan, Ground], Iterator[Measurement]]] = {
    "cells": _cells,
    "addresses": _addresses,
    "sessions": _sessions,
    "sizes": _sizes,
    "recipients": _recipients,
    "workers": _workers,
    "quarantine": _quarantine,
    "latency": _latency,
    "release": _release,
    "import": _import,
}
"""How each series is measured, in the order of the run."""


def _contest(
    series: str, wanted: Sequence[Wanted], loads: Sequence[Load], plan: Plan, ground: Ground
) -> Iterator[Measurement]:
    """Let systems stand side by side, and measure them in turn."""
    with _standing(wanted, plan.addresses, ground) as (systems, fallen):
        yield from Contest(series, systems, ground.sink, plan.addresses, plan.pace).measure(loads)
        for load in loads:
            for absent, failure in fallen:
                yield Measurement(series, load.name, absent.name, 0, command=load.shown(), failure=failure)


@contextmanager
def _standing(
    wanted: Sequence[Wanted], addresses: int, ground: Ground
) -> Iterator[tuple[list[System], list[tuple[Wanted, str]]]]:
    """Run systems for as long as the block; give those that stand, and those that did not start, with the reason."""
    systems, fallen = [], []
    with ExitStack() as stack:
        for each in wanted:
            try:
                systems.append(stack.enter_context(ground.system(each, addresses)))
            except BenchmarkError as error:
                fallen.append((each, str(error)))
        yield systems, fallen
