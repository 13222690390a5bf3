"""What was measured: one value a measurement, one JSON line each; medians of rounds, and ratios within a round."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

RATE = "messages/s"


@dataclass(frozen=True)
class Measurement:
    """One system at one point of a series in one round; ``failure`` says why there are no figures."""

    series: str
    point: str
    system: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    command: str = ""
    failure: str = ""

    def with_figures(self, figures: dict[str, float]) -> "Measurement":
        """Return it with what came out."""
        return replace(self, figures=figures)

    def failed(self, failure: str) -> "Measurement":
        """Return it with why nothing came out."""
        return replace(self, failure=failure)


@dataclass(frozen=True)
class Summary:
    """All rounds of one system at one point."""

    figures: dict[str, float]
    """Medians; empty where no round gave any."""
    rounds: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """The machine, what was left out and why, and all measurements."""

    machine: dict[str, str]
    left_out: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    machines: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of the series that come from another run."""

    def of(self, series: str) -> "Run":
        """Return the part of the run that one series is."""
        measurements = tuple(each for each in self.measurements if each.series == series)
        return Run(self.machines.get(series, self.machine), self.left_out, measurements)

    @property
    def points(self) -> tuple[str, ...]:
        """What was measured, in the order of the run."""
        return tuple(dict.fromkeys(each.point for each in self.measurements))

    @property
    def systems(self) -> tuple[str, ...]:
        """Who was measured, in the order of the run."""
        return tuple(dict.fromkeys(each.system for each in self.measurements))

    def at(self, point: str, system: str) -> list[Measurement]:
        """Return the rounds of one system at one point."""
        return [each for each in self.measurements if (each.point, each.system) == (point, system)]

    def summary(self, point: str, system: str) -> Summary:
        """Join the rounds of one system at one point."""
        rounds = self.at(point, system)
        good = [each.figures for each in rounds if not each.failure]
        names = dict.fromkeys(name for figures in good for name in figures)
        medians = {name: statistics.median(figures[name] for figures in good if name in figures) for name in names}
        return Summary(medians, len(rounds), tuple(each.failure for each in rounds if each.failure))

    def ratio(self, point: str, system: str, base: str, *, figure: str = RATE) -> float | None:
        """Return the median of the ratios to another system in the same round; None where no round has both."""
        bases = {each.round: each.figures[figure] for each in self.at(point, base) if figure in each.figures}
        ratios = [
            each.figures[figure] / bases[each.round]
            for each in self.at(point, system)
            if bases.get(each.round) and figure in each.figures
        ]
        return statistics.median(ratios) if ratios else None


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed (nearest rank)."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]


class Recorder:
    """Writes a run down as it goes: a line that tells of the machine, then one for each measurement."""

    def __init__(self, file: Path, machine: dict[str, str], left_out: Iterable[str]) -> None:
        self._file = file
        self._add({"machine": machine, "left_out": list(left_out)})

    def record(self, measurement: Measurement) -> None:
        """Add a measurement."""
        self._add(asdict(measurement))

    def _add(self, record: dict[str, object]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def load_run(files: Sequence[Path]) -> Run:
    """Read a run, or several that are one together: each series is that of the last file that has it.

    The machine is that of the last file, and those of the others stand beside their series.
    """
    found: dict[str, Run] = {}
    for file in files:
        run = _load(file)
        found |= {name: run.of(name) for name in dict.fromkeys(each.series for each in run.measurements)}
    machines = {name: part.machine for name, part in found.items() if part.machine != run.machine}
    return Run(
        run.machine, run.left_out, tuple(each for part in found.values() for each in part.measurements), machines
    )


def _load(file: Path) -> Run:
    head, *records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return Run(head["machine"], tuple(head["left_out"]), tuple(Measurement(**record) for record in records))
