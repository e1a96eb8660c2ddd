"""Line charts as SVG: axes with ticks, a legend, nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from jobs.pages.draw import COLOURS

WIDTH_PX, HEIGHT_PX = 560, 240
RIGHT_PX, TOP_PX, BOTTOM_PX = 20, 10, 40
"""The margins around the lines, for ticks and labels, in pixels."""
TITLE_PX = 30
"""The space on the left for the axis' title and the gaps between it, its numbers and the frame, in pixels."""
NUM_TICKS = 5
LEGEND_LINE_PX = 17
CHARACTER_PX = 6.5

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line of one colour; its points go from left to right."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Axis:
    """An axis along a side: its label, and its lowest and highest number."""

    label: str
    low: float
    high: float

    def share(self, value: float) -> float:
        """Return the position of a value along the side, 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return about `NUM_TICKS` round numbers."""
        step = _round_step((self.high - self.low) / NUM_TICKS)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


class LogAxis(Axis):
    """A logarithmic axis, which begins above 0: for values that begin large and end small."""

    def share(self, value: float) -> float:
        """Return the position of a value along the side, 0 to 1. A value that is not above 0 is before its start."""
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else -math.inf

    def ticks(self) -> list[float]:
        """Return 1, 2 and 5 times powers of ten."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        return [tick for tick in ticks if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """Return an SVG of lines; points outside an axis are not drawn.

    Args:
        title: the text for people who can't see the chart.
        lines: the lines, each in its own colour; a line of one point is a dot.
        x, y: the axes of the lower and the left side.
    """
    legend, width = _legend(lines)
    frame = f'<path d="M{_left_px(y):.1f},{TOP_PX}V{HEIGHT_PX - BOTTOM_PX}H{WIDTH_PX - RIGHT_PX}" fill="none" stroke="#999"/>'
    drawn = "".join(_draw(line, colour(number), x, y) for number, line in enumerate(lines))
    height = max(HEIGHT_PX, TOP_PX + LEGEND_LINE_PX * len(lines))
    return (
        f'<svg viewBox="0 0 {WIDTH_PX + width:.0f} {height}" width="{WIDTH_PX + width:.0f}" role="img" '
        f'aria-label="{escape(title)}">{_grid(x, y)}{frame}{drawn}{legend}</svg>'
    )


def colour(number: int) -> str:
    """Return the colour of the line at an index; a chart of more lines than colours repeats the colours."""
    return COLOURS[number % len(COLOURS)]


def top_of(values: Sequence[float]) -> float:
    """Return a round number for the end of an axis that begins at 0 and shows all values."""
    highest = max((value for value in values if math.isfinite(value)), default=0.0)
    if highest <= 0:
        return 1.0
    step = _round_step(highest / NUM_TICKS)
    return math.ceil(highest / step - 1e-9) * step


def _round_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least as large as `rough`."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough * (1 - 1e-9)), 10 * power)


def _left_px(y: Axis) -> float:
    """Return the left edge of the frame in pixels: the longest number of the left side has room next to the title."""
    return TITLE_PX + CHARACTER_PX * max((len(f"{tick:g}") for tick in y.ticks()), default=0)


def _place(point: Point, x: Axis, y: Axis) -> Point:
    """Return the place of a point, in pixels of the SVG."""
    left = _left_px(y)
    width, height = WIDTH_PX - left - RIGHT_PX, HEIGHT_PX - TOP_PX - BOTTOM_PX
    return left + width * x.share(point[0]), TOP_PX + height * (1 - y.share(point[1]))


def _draw(line: Line, stroke: str, x: Axis, y: Axis) -> str:
    inside = [(a, b) for a, b in line.points if 0 <= x.share(a) <= 1 and 0 <= y.share(b) <= 1]
    places = [_place(point, x, y) for point in inside]
    if len(places) == 1:
        return f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="{stroke}"/>'
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    return f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.5" stroke-linejoin="round"/>'


def _grid(x: Axis, y: Axis) -> str:
    """Return thin lines at the ticks of the left side, numbers at the ticks of both sides, and the labels."""
    start = _left_px(y)
    bottom, middle = HEIGHT_PX - BOTTOM_PX, (TOP_PX + HEIGHT_PX - BOTTOM_PX) / 2
    parts = []
    for tick in y.ticks():
        _, top = _place((x.low, tick), x, y)
        parts.append(f'<path d="M{start:.1f},{top:.1f}H{WIDTH_PX - RIGHT_PX}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{start - 6:.1f}" y="{top + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x.ticks():
        left, _ = _place((tick, y.low), x, y)
        parts.append(f'<path d="M{left:.1f},{bottom}v4" stroke="#999"/>')
        parts.append(f'<text x="{left:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:,g}</text>')
    centre = (start + WIDTH_PX - RIGHT_PX) / 2
    parts.append(f'<text x="{centre:.0f}" y="{HEIGHT_PX - 6}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    return "".join(parts)


def _legend(lines: Sequence[Line]) -> tuple[str, float]:
    """Return the names next to their colours, on the right of the chart, and the width of this legend.

    A single line needs no legend: its axis has the label.
    """
    if len(lines) < 2:
        return "", 0.0
    parts = []
    for number, line in enumerate(lines):
        top = TOP_PX + 6 + LEGEND_LINE_PX * number
        parts.append(f'<path d="M{WIDTH_PX},{top}h16" stroke="{colour(number)}" stroke-width="3"/>')
        parts.append(f'<text x="{WIDTH_PX + 21}" y="{top + 4}">{escape(line.name)}</text>')
    return "".join(parts), 26 + CHARACTER_PX * max(len(line.name) for line in lines)
