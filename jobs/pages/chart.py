"""Charts as SVG, drawn by matplotlib: lines, bars, histograms, and a row of values per run."""

import io
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from jobs.pages.draw import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, HEIGHT_IN = 7.0, 2.6
"""The size of a chart in inches, of which matplotlib makes 72 points each."""
BAR_IN, PANEL_IN = 0.22, 1.2
"""The height of a bar, and of a panel with one value per run, in inches."""
MAX_NAME = 40
"""The length of a name next to a bar, in characters. Longer ones are cut."""
MAIN = "#4363d8"
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "ssd-batch", "text.parse_math": False, "font.size": 9, "font.family": "sans-serif",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#e4e4e4",
    "axes.axisbelow": True, "axes.edgecolor": "#999999", "xtick.color": "#555555", "ytick.color": "#555555",
    "axes.labelcolor": "#555555", "legend.frameon": False, "lines.linewidth": 1.5,
}  # fmt: skip
"""The look of all charts. Text stays text, and "$" in the name of a class is a dollar."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line of one colour; its points go from left to right."""

    name: str
    points: Sequence[Point]


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    y_limits: tuple[float, float | None] = (0, None),
    is_log: bool = False,
) -> str:
    """Return an SVG of lines.

    Args:
        title: the text for people who can't see the chart.
        lines: the lines, each in its own colour; a line of one point is a dot. Several lines get a legend.
        x_label, y_label: the titles of the axes.
        y_limits: the ends of the left axis. None means the highest point.
        is_log: make the left axis logarithmic, for values that begin large and end small.
    """

    def draw(figure: "Figure") -> None:
        axes: Axes = figure.subplots()
        for number, line in enumerate(lines):
            x, y = zip(*line.points, strict=True) if line.points else ((), ())
            marker = "o" if len(line.points) == 1 else ""
            axes.plot(x, y, color=COLOURS[number % len(COLOURS)], label=line.name, marker=marker)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_yscale("log" if is_log else "linear")
        axes.set_ylim(*y_limits)
        if len(lines) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), handlelength=1)

    return _svg(title, HEIGHT_IN, draw)


def bar_chart(title: str, bars: Sequence[tuple[str, float]], label: str) -> str:
    """Return an SVG of bars from left to right, one below the other, each with its name and its value."""

    def draw(figure: "Figure") -> None:
        axes: Axes = figure.subplots()
        names = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name, _ in bars]
        drawn = axes.barh(range(len(bars)), [value for _, value in bars], color=MAIN, height=0.7)
        axes.bar_label(drawn, labels=[f"{value:,}" for _, value in bars], padding=3, color="#555555")
        axes.set_yticks(range(len(bars)), names)
        axes.invert_yaxis()
        axes.set(xlabel=label)
        axes.margins(x=0.12)
        axes.grid(visible=False)

    return _svg(title, 0.6 + BAR_IN * len(bars), draw)


def histogram(
    title: str,
    counts: Sequence[int],
    edges: Sequence[float],
    x_label: str,
    y_label: str,
    red_below: float | None = None,
) -> str:
    """Return an SVG of a histogram.

    Args:
        title: the text for people who can't see the chart.
        counts: the number of values in each bin, N.
        edges: the borders of the bins, N + 1.
        x_label, y_label: the titles of the axes.
        red_below: the value below which bins are red.
    """

    def draw(figure: "Figure") -> None:
        axes: Axes = figure.subplots()
        colours = [COLOURS[0] if red_below is not None and edge < red_below else MAIN for edge in edges[:-1]]
        widths = [after - before for before, after in itertools.pairwise(edges)]
        axes.bar(edges[:-1], counts, widths, align="edge", color=colours, edgecolor="white", linewidth=0.5)
        axes.set(xlabel=x_label, ylabel=y_label, xlim=(edges[0], edges[-1]))

    return _svg(title, HEIGHT_IN, draw)


def run_chart(title: str, runs: Sequence[str], panels: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """Return an SVG with a panel for each quantity, one below the other, over the same runs.

    Args:
        title: the text for people who can't see the chart.
        runs: the names of the runs, from the oldest on.
        panels: the title of each quantity, and its value in each run; None where a run has none.
    """

    def draw(figure: "Figure") -> None:
        rows = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(rows, panels, strict=True):
            axes.plot(
                range(len(runs)),
                [float("nan") if value is None else value for value in values],
                color=MAIN,
                marker="o",
                markersize=3,
            )
            axes.set_ylim(bottom=0)
            axes.set_title(name, loc="left", fontsize=9, color="#555555")
        rows[-1].set_xticks(range(len(runs)), runs, rotation=30, ha="right")

    return _svg(title, 0.5 + PANEL_IN * len(panels), draw)


def _svg(title: str, height_in: float, draw: Any) -> str:
    """Return the drawing of a figure as an element of HTML."""
    import matplotlib  # takes half a second, which commands without a page need not wait for
    from matplotlib.figure import Figure

    content = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # which the font of the reader's browser has
        warnings.filterwarnings("ignore", "Data has no positive values")
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(figure)
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = content.getvalue()
    return f'<div role="img" aria-label="{escape(title)}">{drawing[drawing.index("<svg") :]}</div>'
