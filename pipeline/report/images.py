"""The images of a run that are worth a look."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pipeline.report.counts import RunCounts, boxes_from, of_run_ids
from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.query import BOX, IS_PERMANENT, MESSAGE_ALIKE, rows_of

Choice = Literal["best", "low", "odd", "random"]
NUM_IMAGES = 6
"""The number of images per choice."""
NUM_RARE_CLASSES = 20
"""The number of rarest classes that make an image odd."""


@dataclass(frozen=True)
class ImageToShow:
    """An image with the boxes that count."""

    uri: str
    etag: str
    size_bytes: int | None
    detections: list[dict[str, Any]] = field(default_factory=list)
    """The table's detections."""


def choose_images(table: ResultTable, run: RunCounts, min_score: float) -> dict[Choice, list[ImageToShow]]:
    """Return images of a run.

    They are those with the highest and with the lowest best score, the oddest by their number of boxes and by rare classes, and some
    that a hash picks.
    """
    kept, of_run = boxes_from(min_score), f"{of_run_ids([run.run_id])} AND status = 'ok'"
    has_box = f"max_score >= {min_score}::FLOAT"
    orders: Mapping[Choice, str] = {
        "best": f"WHERE {of_run} AND {has_box} ORDER BY max_score DESC, uri",
        "low": f"WHERE {of_run} AND {has_box} ORDER BY max_score, uri",
        "odd": f"WHERE {of_run} ORDER BY {_oddness(run, kept)} DESC, uri",
        "random": f"WHERE {of_run} ORDER BY hash(uri)",
    }
    chosen = {
        choice: [row["uri"] for row in rows_of(table, f"SELECT uri FROM history {orders[choice]} LIMIT {NUM_IMAGES}")]
        for choice in get_args(Choice)
    }
    uris = sorted({uri for of_choice in chosen.values() for uri in of_choice})
    if not uris:
        return {}
    rows = rows_of(
        table,
        f"""SELECT uri, etag, size_bytes, {kept} AS detections FROM history
            WHERE {of_run} AND uri IN ({", ".join(map(literal, uris))})""",
    )
    images = {row["uri"]: ImageToShow(**row) for row in rows}
    return {choice: [images[uri] for uri in of_choice] for choice, of_choice in chosen.items()}


def _oddness(run: RunCounts, kept: str) -> str:
    """Return the SQL of how unusual an image is.

    It is the distance of its number of boxes from the mean, in standard deviations, and the information of its rarest class.
    """
    images = max(sum(run.images_by_boxes.values()), 1)
    mean = sum(number * count for number, count in run.images_by_boxes.items()) / images
    variance = sum((number - mean) ** 2 * count for number, count in run.images_by_boxes.items()) / images
    distance = f"abs(len({kept}) - {mean}) / {max(variance**0.5, 1e-6)}"
    rarest = sorted(run.classes, key=lambda name: run.classes[name].num_boxes)[:NUM_RARE_CLASSES]
    if not rarest:
        return distance
    information = (
        f"WHEN {literal(name)} THEN {math.log(run.num_boxes / run.classes[name].num_boxes):.4f}" for name in rarest
    )
    of_box = f"CASE {BOX}.label {' '.join(information)} ELSE 0 END"
    return f"{distance} + coalesce(list_max(list_transform({kept}, lambda {BOX}: {of_box})), 0)"


@dataclass(frozen=True)
class Cause:
    """Failures that are alike."""

    error_stage: str
    error_type: str
    message: str
    """The message, with an ellipsis where the messages differ: for numbers and quoted names."""
    is_permanent: bool
    num_images: int
    uris: list[str]
    """The first few images."""


def find_causes(table: ResultTable, run_id: str, num_causes: int, num_uris: int) -> tuple[list[Cause], int]:
    """Return the most frequent causes of failures in a run, and the number of all causes."""
    rows = rows_of(
        table,
        f"""SELECT error_stage, error_type, {MESSAGE_ALIKE} AS message, bool_and({IS_PERMANENT}) AS is_permanent,
                count(*) AS num_images, min(uri, {num_uris}) AS uris
            FROM history WHERE {of_run_ids([run_id])} AND status = 'failed' GROUP BY ALL
            ORDER BY num_images DESC, error_stage, error_type, message""",
    )
    return [Cause(**row) for row in rows[:num_causes]], len(rows)
