"""What the guard is to reach, beside what was measured. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

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
    """A bound for each of these points of a series: a least value, or one to stay below."""

    words: str
    series: str
    points: Sequence[str]
    measure: Measure
    sign: Literal["≥", "<"]
    bound: float

    def is_reached_by(self, value: float) -> bool:
        """Whether this is enough."""
        return value >= self.bound if self.sign == "≥" else value < self.bound


def _ratio(system: str, base: str, figure: str = RATE) -> Measure:
    return lambda run, point: run.ratio(point, system, base, figure=figure)


def _median(system: str, figure: str) -> Measure:
    return lambda run, point: run.summary(point, system).figures.get(figure)


GOALS = (
    Goal("SQLite, messages/s to Postfix's", "cells", BUSY, _ratio(SQLITE, POSTFIX), "≥", 2),
    Goal("the same, one session at a time", "cells", ("c1", "k1"), _ratio(SQLITE, POSTFIX), "≥", 1.3),
    Goal("SQLite, big messages to those of no system", "cells", BIG, _ratio(SQLITE, DIRECT), "≥", 0.95),
    Goal("SQLite, CPU to Postfix's", "cells", (*SMALL, *BIG), _ratio(SQLITE, POSTFIX, "cpu"), "<", 0.5),
    Goal("PostgreSQL, messages/s to Postfix's", "cells", BUSY, _ratio(POSTGRESQL, POSTFIX), "≥", 1.5),
    Goal("SQLite, MiB of the process", "cells", SMALL, _median(SQLITE, "rss"), "<", 80),
    Goal("SQLite, messages/s kept back to those of HOLD", "quarantine", ("q10",), _ratio(SQLITE, HOLD), "≥", 3),
    Goal("SQLite, seconds for an import", "import", ("1,000,000",), _median(SQLITE, "seconds"), "<", 15),
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
    return [goal.words, f"{goal.sign} {goal.bound:g}", measured, f"{reached} of {len(values)}"]
