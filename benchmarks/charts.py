"""Charts as SVG, written by hand: bars, and lines over steps. Pure; no library is worth two kinds of charts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 60, 50
COLOURS = ("#2f6db3", "#e08a1e", "#4a9d5b", "#8a8a8a", "#a8508f")


@dataclass(frozen=True)
class Chart:
    """A title, names along the x axis, and a row of values for each of some things; None: there is no value."""

    title: str
    steps: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]

    @property
    def values(self) -> list[float]:
        """All that there are."""
        return [value for row in self.rows.values() for value in row if value]


def bars(chart: Chart, *, mark: float) -> str:
    """Draw groups of bars, with a line at a value that all are compared with."""
    top = max([*chart.values, mark]) * 1.1
    scale = Scale(0, top)
    room = _room(chart)
    width = room * 0.8 / max(len(chart.rows), 1)
    shapes = [*_frame(chart), *_grid(_even_marks(top), scale), _level(mark, scale, colour="#c0392b")]
    for number, row in enumerate(chart.rows.values()):
        for step, value in enumerate(row):
            if value is not None:
                left = LEFT + room * (step + 0.1) + width * number
                shapes.append(_bar(left, scale.y(value), width, COLOURS[number % len(COLOURS)]))
                shapes.append(
                    _text(
                        left + width / 2, scale.y(value) - 4, f"{value:.2g}" if value < 10 else f"{value:.0f}", size=10
                    )
                )
    return _document(shapes)


def lines(chart: Chart) -> str:
    """Draw a line for each row over the steps; each tenfold value is as far up again."""
    low, high = math.floor(math.log10(min(chart.values))), math.ceil(math.log10(max(chart.values)))
    scale = Scale(10**low, 10 ** max(high, low + 1), is_logarithmic=True)
    shapes = [*_frame(chart), *_grid([10.0**power for power in range(low, max(high, low + 1) + 1)], scale)]
    for number, row in enumerate(chart.rows.values()):
        colour = COLOURS[number % len(COLOURS)]
        points = [(_middle(chart, step), scale.y(value)) for step, value in enumerate(row) if value]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return _document(shapes)


@dataclass(frozen=True)
class Scale:
    """Where a value stands on the y axis."""

    low: float
    high: float
    is_logarithmic: bool = False

    def y(self, value: float) -> float:
        """Return how far down it is."""
        low, high, at = (self._even(each) for each in (self.low, self.high, value))
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (at - low) / (high - low))

    def _even(self, value: float) -> float:
        return math.log10(value) if self.is_logarithmic else value


def _room(chart: Chart) -> float:
    """Return how wide a step is."""
    return (WIDTH - LEFT - RIGHT) / len(chart.steps)


def _middle(chart: Chart, step: int) -> float:
    return LEFT + _room(chart) * (step + 0.5)


def _frame(chart: Chart) -> Iterator[str]:
    """Title, legend, and the names along the x axis."""
    yield _text(LEFT, 22, chart.title, anchor="start", size=15)
    for number, name in enumerate(chart.rows):
        left = LEFT + 170 * number
        yield _bar(left, 34, 12, COLOURS[number % len(COLOURS)], bottom=46)
        yield _text(left + 18, 45, name, anchor="start", size=12)
    for step, name in enumerate(chart.steps):
        yield _text(_middle(chart, step), HEIGHT - BOTTOM + 20, name)


def _grid(marks: Sequence[float], scale: Scale) -> Iterator[str]:
    for mark in marks:
        yield _level(mark, scale, colour="#dddddd")
        yield _text(LEFT - 8, scale.y(mark) + 4, f"{mark:,g}", anchor="end", size=11)


def _even_marks(top: float) -> list[float]:
    """Return about five round values from 0 to the top."""
    power = 10 ** math.floor(math.log10(top / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= top / 5)
    return [step * number for number in range(math.floor(top / step) + 1)]


def _level(value: float, scale: Scale, *, colour: str) -> str:
    y = scale.y(value)
    return f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="{colour}"/>'


def _bar(left: float, top: float, width: float, colour: str, *, bottom: float = HEIGHT - BOTTOM) -> str:
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _document(shapes: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    paper = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    return "\n".join([f'{head} font-family="sans-serif">', paper, *shapes, "</svg>", ""])
