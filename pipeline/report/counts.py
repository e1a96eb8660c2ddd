"""The counts of several runs: images, boxes, classes and scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray

from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.query import BOX, rows_of

NUM_SCORE_BINS = 20
"""The number of bins of scores from 0 to 1."""


@dataclass(eq=False)
class ClassCounts:
    """The boxes of one class in one run."""

    num_boxes: int = 0
    sum_scores: float = 0.0
    sum_squares: float = 0.0
    """The sum of the squares of the scores."""
    score_bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_SCORE_BINS, np.int64))
    """(NUM_SCORE_BINS,) int64, boxes by score."""


@dataclass(eq=False)
class RunCounts:
    """The images and boxes of one run."""

    run_id: str
    run_date: date
    num_ok: int
    num_failed: int
    images_by_boxes: dict[int, int] = field(default_factory=dict)
    """The number of images by their number of boxes."""
    classes: dict[str, ClassCounts] = field(default_factory=dict)
    """The counts of each class that was found."""

    @property
    def num_boxes(self) -> int:
        """Return the number of boxes of all classes."""
        return sum(of_class.num_boxes for of_class in self.classes.values())


def count_runs(table: ResultTable, run_ids: Sequence[str], min_score: float) -> list[RunCounts]:
    """Return the counts of runs in the order of their IDs, which is that of their starts. Runs without rows are left out.

    Args:
        table: the table of results.
        run_ids: the IDs of the runs.
        min_score: the score below which boxes do not count.
    """
    of_runs = of_run_ids(run_ids)
    rows = rows_of(
        table,
        f"""SELECT run_id, min(run_date) AS run_date, count(*) FILTER (status = 'ok') AS num_ok,
            count(*) FILTER (status = 'failed') AS num_failed FROM history WHERE {of_runs} GROUP BY run_id ORDER BY run_id""",
    )
    runs = {row["run_id"]: RunCounts(**row) for row in rows}
    images = rows_of(
        table,
        f"""SELECT run_id, len({boxes_from(min_score)}) AS num_boxes, count(*) AS num_images
            FROM history WHERE {of_runs} AND status = 'ok' GROUP BY ALL ORDER BY ALL""",
    )
    for row in images:
        runs[row["run_id"]].images_by_boxes[row["num_boxes"]] = row["num_images"]
    boxes = rows_of(
        table,
        f"""SELECT run_id, label, least(floor(score * {NUM_SCORE_BINS})::INTEGER, {NUM_SCORE_BINS - 1}) AS bin, count(*) AS num_boxes,
                sum(score::DOUBLE) AS sum_scores, sum(score::DOUBLE ** 2) AS sum_squares
            FROM (SELECT run_id, unnest(detections, recursive := true) FROM history WHERE {of_runs})
            WHERE score >= {min_score}::FLOAT GROUP BY ALL""",
    )
    for row in boxes:
        of_class = runs[row["run_id"]].classes.setdefault(row["label"], ClassCounts())
        of_class.num_boxes += row["num_boxes"]
        of_class.sum_scores += row["sum_scores"]
        of_class.sum_squares += row["sum_squares"]
        of_class.score_bins[row["bin"]] += row["num_boxes"]
    return list(runs.values())


def of_run_ids(run_ids: Sequence[str]) -> str:
    """Return the SQL condition of rows that these runs wrote."""
    return f"run_id IN ({', '.join(map(literal, run_ids))})"


def boxes_from(min_score: float) -> str:
    """Return the SQL of an image's boxes with at least this score."""
    return f"list_filter(detections, lambda {BOX}: {BOX}.score >= {min_score}::FLOAT)"


def count_sizes(table: ResultTable, run_id: str, min_score: float, num_bins: int) -> NDArray[np.int64]:
    """Return the boxes of a run by size, (num_bins,) int64.

    A size is the square root of the box's share of its image: 1 is the whole image.
    """
    rows = rows_of(
        table,
        f"""SELECT least(floor(sqrt((xmax - xmin) * (ymax - ymin) / (width_px * height_px)) * {num_bins})::INTEGER, {num_bins - 1}) AS bin,
                count(*) AS num_boxes
            FROM (SELECT width_px, height_px, unnest(detections, recursive := true) FROM history WHERE {of_run_ids([run_id])})
            WHERE score >= {min_score}::FLOAT GROUP BY ALL""",
    )
    sizes = np.zeros(num_bins, np.int64)
    for row in rows:
        sizes[row["bin"]] = row["num_boxes"]
    return sizes
