"""Markdown tables of a run: points down, systems across. Pure."""

from collections.abc import Callable, Sequence

from benchmarks.results import RATE, Run
from benchmarks.systems import title

Show = Callable[[Run, str, str], str]
"""Shows something of one system at one point."""

NOTHING = "-"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table; all but the first column is numbers."""
    marks = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, marks, *rows))


def by_system(run: Run, head: str, show: Show, systems: Sequence[str]) -> str:
    """Show something of each of these systems at each point."""
    rows = [[point, *(show(run, point, system) for system in systems)] for point in run.points]
    return table([head, *map(title, systems)], rows)


def rate_beside(base_of: Callable[[str], str]) -> Show:
    """Show messages a second, and the ratio to another system in the same round: that which ``base_of`` names."""

    def show(run: Run, point: str, system: str) -> str:
        base = base_of(system)
        ratio = None if system == base else run.ratio(point, system, base)
        return figure(RATE)(run, point, system) + (f" ({ratio:.2f}x)" if ratio else "")

    return show


def figure(*names: str) -> Show:
    """Show the medians of some figures, with a slash between; ``failed`` where no round gave any."""

    def show(run: Run, point: str, system: str) -> str:
        summary = run.summary(point, system)
        if not summary.figures:
            return "failed" if summary.failures else NOTHING
        failed = f" ({len(summary.failures)} of {summary.rounds} failed)" if summary.failures else ""
        return " / ".join(number(summary.figures.get(name)) for name in names) + failed

    return show


def number(value: float | None) -> str:
    """Show a number with about three digits, and all digits before the point."""
    if value is None:
        return NOTHING
    if not value:
        return "0"
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"


def failures(run: Run) -> str:
    """List what failed, word for word; nothing where nothing did."""
    failed = [each for each in run.measurements if each.failure]
    lines = [f"- {each.point}, {title(each.system)}, round {each.round + 1}: {each.failure}" for each in failed]
    return "\n".join(["Failed:", "", *lines]) if lines else ""
