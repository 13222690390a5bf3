"""The documents that figures go into: what stands between two markers is the benchmark's, the rest is not touched."""

from pathlib import Path

from benchmarks.charts import Chart, bars, lines
from benchmarks.processes import BenchmarkError
from benchmarks.report import SECTIONS, report, short_table
from benchmarks.results import RATE, Run
from benchmarks.systems import GUARD, POSTFIX, title

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
DOCUMENT, README = Path("docs/benchmarks.md"), Path("README.md")
GROWTH = ("addresses", "sessions", "sizes", "recipients")


def ensure_markers(root: Path) -> None:
    """Raise BenchmarkError where a document has no place for figures: better before the run than after it."""
    for name in (DOCUMENT, README):
        insert((root / name).read_text(encoding="utf-8"), "", name=str(name))


def publish(run: Run, root: Path) -> None:
    """Write a run into the documents, with its charts."""
    drawn = charts(run)
    for name, drawing in drawn.items():
        (root / DOCUMENT.parent / name).write_text(drawing, encoding="utf-8")
    pictures = "\n".join(f"![{name.removesuffix('.svg')}]({name})" for name in drawn)
    _insert_into(root / DOCUMENT, f"{pictures}\n\n{report(run)}")
    _insert_into(root / README, short_table(run))


def insert(text: str, content: str, *, name: str) -> str:
    """Return a document with new content between its markers; raise BenchmarkError where it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchmarkError(f"{name} has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def charts(run: Run) -> dict[str, str]:
    """Draw what was measured: the cells as ratios to Postfix, growth as messages a second. By file name."""
    drawn = {}
    cells = run.of("cells")
    compared = [system for system in cells.systems if system.startswith(GUARD)]
    if any(cells.ratio(point, system, POSTFIX) for point in cells.points for system in compared):
        rows = {title(system): [cells.ratio(point, system, POSTFIX) for point in cells.points] for system in compared}
        heading = "Messages a second, as a multiple of Postfix's proxy filter (red: 1)"
        drawn["benchmarks-cells.svg"] = bars(Chart(heading, cells.points, rows), mark=1)
    for series in GROWTH:
        chart = _growth(run.of(series), SECTIONS[series].heading)
        if chart.values:
            drawn[f"benchmarks-{series}.svg"] = lines(chart)
    return drawn


def _growth(run: Run, heading: str) -> Chart:
    systems = sorted(run.systems, key=lambda system: not system.startswith(GUARD))  # in the colours of the cells
    rows = {title(system): [run.summary(point, system).figures.get(RATE) for point in run.points] for system in systems}
    return Chart(f"Messages a second, logarithmic: {heading.lower()}", run.points, rows)


def _insert_into(file: Path, content: str) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(insert(text, content, name=file.name), encoding="utf-8")
