"""A run as Markdown: a section a series, and the short table of the README. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.goals import goals
from benchmarks.results import RATE, Measurement, Run
from benchmarks.sink import sink_command
from benchmarks.systems import DIRECT, GUARD, HOLD, POSTFIX, title
from benchmarks.tables import Show, by_system, failures, figure, number, rate_beside, table

SHORT = {
    "c10": "4 KiB, a connection each, 10 at a time",
    "k10": "4 KiB, 10 kept connections",
    "k50": "4 KiB, 50 kept connections",
    "r10": "4 KiB to 10 recipients, 10 at a time",
    "m1": "1 MB, 10 at a time",
}
"""The cells that the README shows."""


@dataclass(frozen=True)
class Section:
    """A series in the document. ``base_of``: tells of a system which other one its ratios are to."""

    heading: str
    point: str
    text: str
    base_of: Callable[[str], str] = lambda _: POSTFIX

    @property
    def show(self) -> Show:
        """Shows messages a second, beside."""
        return rate_beside(self.base_of)


SECTIONS = {
    "cells": Section(
        "The cells", "cell", "Messages a second, and the ratio to Postfix's proxy filter in the same round."
    ),
    "addresses": Section(
        "Addresses", "addresses", "As k10, with so many addresses in the store, or in the map of Postfix."
    ),
    "sessions": Section("Sessions", "sessions", "4 KiB, so many kept connections."),
    "sizes": Section("Sizes", "size", "4 kept connections."),
    "recipients": Section("Recipients", "recipients", "4 KiB to so many recipients a message, 10 kept connections."),
    "workers": Section(
        "Workers",
        "cell",
        "The guard with one process and with two (`[smtp] workers`), beside Postfix, which has one for each session.",
    ),
    "quarantine": Section(
        "Quarantine",
        "cell",
        "No recipient is verified: each message is kept back, on the disk before its 250. q1: 4 KiB, 1 kept "
        "connection; q10: 10. Postfix keeps the same mail with HOLD.",
        lambda _: HOLD,
    ),
}


def report(run: Run) -> str:
    """Return all of a run, to be put between the markers of docs/benchmarks.md."""
    parts = [machine_table(run), commands(run)]
    for series, tell in CHAPTERS.items():
        part = run.of(series)
        if part.measurements:
            heading, text, *tables = tell(part)
            parts += [f"### {heading}", text, _origin(part, run), *tables, failures(part)]
    if wanted := goals(run):
        parts[2:2] = ["### What was to be reached", wanted]
    return "\n\n".join(filter(None, parts))


def _origin(part: Run, run: Run) -> str:
    """Tell where a series comes from that is not of the same run as the rest."""
    if part.machine == run.machine:
        return ""
    others = [f"{what} {value}" for what, value in part.machine.items() if value and value != run.machine.get(what)]
    return f"Of another run ({', '.join(others)}; the rest as above)."


def short_table(run: Run) -> str:
    """Return the short table, to be put between the markers of README.md."""
    cells = run.of("cells")
    systems = [system for system in cells.systems if system == POSTFIX or system.startswith(GUARD)]
    rows = [
        [words, *(SECTIONS["cells"].show(cells, cell, system) for system in systems)]
        for cell, words in SHORT.items()
        if cell in cells.points
    ]
    machine = cells.machine
    origin = f"{machine['date']}, {machine['processor']}, commit {machine['commit']}."
    return f"{table(['messages/s', *map(title, systems)], rows)}\n\n{origin}"


def machine_table(run: Run) -> str:
    """Return what the run was made on, and what could not take part."""
    lines = [[name, value] for name, value in run.machine.items() if value]
    lines += [["left out", each] for each in run.left_out]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in lines)])


def commands(run: Run) -> str:
    """Return the commands, word for word, each once: that of smtp-sink, and one for each point of a series."""
    points: dict[str, str] = {}
    for each in run.measurements:
        points.setdefault(each.command, f"{each.series} {each.point}")
    lines = [f"{point:18} {command}" for command, point in points.items() if command]
    return "\n".join(["```", f"{'all':18} {' '.join(sink_command('PORT'))}", *lines, "```"])


def one_line(measurement: Measurement) -> str:
    """Return a measurement as a line for whoever waits."""
    figures = ", ".join(f"{name} {number(value)}" for name, value in measurement.figures.items() if value)
    said = f"FAILED: {measurement.failure}" if measurement.failure else figures
    return f"{measurement.series:10} {measurement.point:>10} {measurement.system:18} {said}"


def _contest(run: Run, section: Section) -> Iterator[str]:
    """Rates; then what that took, of those systems that are one."""
    measured = [system for system in run.systems if system != DIRECT]
    yield section.heading
    yield section.text
    yield by_system(run, f"{section.point}, messages/s", section.show, run.systems)
    yield by_system(run, "CPU seconds/1,000 messages", _cpu, measured)
    yield by_system(run, "MiB: largest process / its peak / all (PSS)", figure("rss", "peak", "pss"), measured)


def _cpu(run: Run, point: str, system: str) -> str:
    """With that of a store server behind a plus."""
    of_store = run.summary(point, system).figures.get("store cpu")
    return figure("cpu")(run, point, system) + (f" + {number(of_store)}" if of_store else "")


def _latency(run: Run) -> Iterator[str]:
    yield "Latency"
    yield (
        "Milliseconds from when a message was due to its 250: median / 90 % / 99 % / the longest, medians of the "
        "rounds. Messages fall due at a steady rate whether or not the system keeps up (an open loop), for 20 kept "
        "connections; 4 KiB."
    )
    yield by_system(run, "rate, ms", figure("p50", "p90", "p99", "max"), run.systems)


def _release(run: Run) -> Iterator[str]:
    yield "Release"
    yield (
        "Messages in quarantine, kept back by the guard itself, released with `smtpguard quarantine release ID...`, "
        "5,000 a command and one command after the other."
    )
    yield _once(run, {"seconds": "seconds", RATE: "messages/s", "peak": "peak MiB of a command", "kept/s": "kept/s"})


def _import(run: Run) -> Iterator[str]:
    yield "Import"
    yield "Rows of `smtpguard address import`, all new and verified."
    yield _once(run, {"seconds": "seconds", RATE: "rows/s", "peak": "peak MiB"})


def _once(run: Run, heads: Mapping[str, str]) -> str:
    """Show some figures of what is measured once."""
    rows = [
        [f"{point}, {title(system)}", *(figure(name)(run, point, system) for name in heads)]
        for point in run.points
        for system in run.systems
    ]
    return table(["", *heads.values()], rows)


CHAPTERS: dict[str, Callable[[Run], Iterator[str]]] = {
    **{series: partial(_contest, section=section) for series, section in SECTIONS.items()},
    "latency": _latency,
    "release": _release,
    "import": _import,
}
"""What is told of each series: a heading, a sentence, and tables."""
