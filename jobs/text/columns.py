"""Figures as text that people read."""

from collections.abc import Sequence


def number(value: float | None, form: str) -> str:
    """Return a figure in one of Python's formats, such as ",.2f"; a dash where there is none."""
    return "–" if value is None else format(value, form)


def columns(rows: Sequence[Sequence[str]], num_names: int = 1) -> str:
    """Return rows of cells as aligned lines; the first `num_names` columns are names, the others figures."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(_aligned(row, widths, num_names)).rstrip() for row in rows)


def _aligned(row: Sequence[str], widths: Sequence[int], num_names: int) -> list[str]:
    return [
        cell.ljust(width) if index < num_names else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
