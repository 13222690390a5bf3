"""What the guard is to reach, beside what was measured. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.results import RATE, Run
from benchmarks.systems import DIRECT, GUARD, HOLD, POSTFIX, Wanted
from benchmarks.tables import table

SQLITE, POSTGRESQL = Wanted(GUARD, "sqlite").name, Wanted(GUARD, "postgresql").name
SMALL = ("c1", "c10", "c50", "k1", "k10", "k50", "r10")
BUSY = ("c10", "c50", "k10", "k50", "r10")
BIG = ("m1", "m10")

Measure = Callable[[Run, str], float | None]
"""Measures a series at a point."""


@dataclass(frozen=True)
class Goal:
    """At least so much, or less than so much, at each of these points of a series."""

    words: str
    series: str
    points: Sequence[str]
    measure: Measure
    at_least: float | None = None
    below: float | None = None

    @property
    def wanted(self) -> str:
        """What is wanted, for people."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"< {self.below:g}"

    def is_reached_by(self, value: float) -> bool:
        """Whether this is enough."""
        return value >= self.at_least if self.at_least is not None else value < (self.below or 0)


def _ratio(system: str, base: str, figure: str = RATE) -> Measure:
    return lambda run, point: run.ratio(point, system, base, figure=figure)


def _median(system: str, figure: str) -> Measure:
    return lambda run, point: run.summary(point, system).figures.get(figure)


GOALS = (
    Goal("SQLite, messages/s to Postfix's", "cells", BUSY, _ratio(SQLITE, POSTFIX), at_least=2),
    Goal("the same, one session at a time", "cells", ("c1", "k1"), _ratio(SQLITE, POSTFIX), at_least=1.3),
    Goal("SQLite, big messages to those of no system", "cells", BIG, _ratio(SQLITE, DIRECT), at_least=0.95),
    Goal("SQLite, CPU to Postfix's", "cells", (*SMALL, *BIG), _ratio(SQLITE, POSTFIX, "cpu"), below=0.5),
    Goal("PostgreSQL, messages/s to Postfix's", "cells", BUSY, _ratio(POSTGRESQL, POSTFIX), at_least=1.5),
    Goal("SQLite, MiB of the process", "cells", SMALL, _median(SQLITE, "rss"), below=80),
    Goal("SQLite, messages/s kept back to those of HOLD", "quarantine", ("q10",), _ratio(SQLITE, HOLD), at_least=3),
    Goal("SQLite, seconds for an import", "import", ("1,000,000",), _median(SQLITE, "seconds"), below=15),
)


def goals(run: Run) -> str:
    """Return the table of the goals that something was measured of; nothing where there is none."""
    rows = [row for goal in GOALS if (row := _row(goal, run.of(goal.series)))]
    return table(["goal", "wanted", "measured", "reached"], rows) if rows else ""


def _row(goal: Goal, run: Run) -> list[str]:
    values = {point: value for point in goal.points if (value := goal.measure(run, point)) is not None}
    if not values:
        return []
    measured = ", ".join(f"{point} {value:.3g}" for point, value in values.items())
    reached = sum(map(goal.is_reached_by, values.values()))
    return [goal.words, goal.wanted, measured, f"{reached} of {len(values)}"]
