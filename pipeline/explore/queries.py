"""The questions that the explorer asks of a table's flat copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import duckdb
import numpy as np

from pipeline.explore.build import COLUMN
from pipeline.explore.cache import Copy
from pipeline.explore.compare import pairs_of
from pipeline.explore.filters import Filter
from pipeline.table.query import MESSAGE_ALIKE

PAGE = 60
"""The number of images of a page."""
MAX_LISTED = 100_000
"""The most images of a list to download."""
MAX_CHOICES = 200
"""The most values of a column from paths that can be chosen from a list."""
KEY = "lpad(lower(hex(\".key\")), 16, '0')"
"""The SQL of a row's name, 16 hexadecimal digits."""
SHOWN = (
    "uri", "etag", "size_bytes", "status", "run_id", "run_date", "model_name", "model_digest", "width_px", "height_px", "error_type",
)  # fmt: skip
"""The columns of an image on a page."""
VERSION = ("uri", "etag", "size_bytes", "last_modified")
"""The columns of a list that `infer` takes."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """The values that filters can have."""

    classes: list[str]
    models: list[Row]
    runs: list[str]
    """The IDs of the runs whose rows the table has, the newest first."""
    columns: dict[str, list[str]]
    """The columns from paths, with their values if there are few."""


def path_columns(copy: Copy) -> list[str]:
    """Return the names of the columns from paths that can be filtered by."""
    return [name.removeprefix(COLUMN) for name in copy.search.values if name.startswith(COLUMN)]


def facts(copy: Copy) -> Facts:
    """Return what can be chosen in filters."""
    values = copy.search.values
    of_paths = {name: values[COLUMN + name] for name in path_columns(copy)}
    columns = {name: choices if len(choices) <= MAX_CHOICES else [] for name, choices in of_paths.items()}
    with copy.images() as db:
        models = rows(db, "SELECT model_digest, any_value(model_name) AS model_name FROM images GROUP BY 1 ORDER BY 1")
    return Facts(values["label"], models, values["run_id"][::-1], columns)


def rows(db: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return the rows of an answer by column name."""
    found: list[Row] = db.sql(sql, params=list(values)).to_arrow_table().to_pylist()
    return found


def page(copy: Copy, chosen: Filter, offset: int) -> list[Row]:
    """Return a page of images with their boxes from the filter's score on; `found` is the number that the filter is about."""
    shown = copy.search.page(chosen, offset, PAGE)
    images = _images(copy, [image_id for image_id, _ in shown], chosen.min_score)
    return [image | {"found": num_boxes} for image, (_, num_boxes) in zip(images, shown, strict=True)]


def _images(copy: Copy, ids: Sequence[int], min_score: float) -> list[Row]:
    """Return images as a page shows them, with their boxes from a score on."""
    return [
        row | {"key": f"{row.pop('.key'):016x}", "boxes": copy.search.boxes_of(image_id, min_score)}
        for image_id, row in zip(ids, copy.rows(ids, (".key", *SHOWN)), strict=True)
    ]


def image(copy: Copy, key: str) -> Row | None:
    """Return the image of a name with all its boxes, and its `row` of the table; None if there is no such row."""
    ids = copy.search.ids_of([key])[:1]
    if not ids:
        return None
    (shown,), (row,) = _images(copy, ids, 0.0), copy.rows(ids)
    return shown | {"row": row}


def versions(copy: Copy, keys: Sequence[str]) -> list[Row]:
    """Return the version of each named image by name, as a run takes it in a list."""
    return sorted(copy.rows(copy.search.ids_of(keys), VERSION), key=itemgetter("uri"))


def all_versions(copy: Copy, chosen: Filter) -> list[Row]:
    """Return the version of each image that a filter shows, by name, `MAX_LISTED` at most."""
    by_name = copy.search.page(chosen.model_copy(update={"sort": "name"}), 0, MAX_LISTED)
    return copy.rows([image_id for image_id, _ in by_name], VERSION)


def failures(copy: Copy) -> list[Row]:
    """Return the causes of failures of the latest rows, the most frequent first, with some images each."""
    with copy.images() as db:
        return rows(
            db,
            f"""SELECT error_stage, error_type, {MESSAGE_ALIKE} AS message,
                    count(*) AS num_images, min(run_date) AS first_date, max(run_date) AS last_date, min({KEY}, 5) AS keys
                FROM images WHERE status = 'failed' AND ".is_latest" GROUP BY ALL
                ORDER BY num_images DESC, error_stage, error_type, message LIMIT 200""",
        )


@dataclass(frozen=True)
class Side:
    """A side of a comparison: a model's latest rows, or the rows of a run."""

    model: str | None = None
    run: str | None = None


def compare(copy: Copy, a: Side, b: Side, min_score: float, offset: int) -> Row:
    """Return a page of the images that both sides have, those first whose numbers of boxes per class differ most.

    Returns:
        `images`, the number that both have; `differing`, how many of these differ; `page`, pairs of images with boxes.
    """
    first, second = (
        copy.search.shown(Filter(model=side.model, run=side.run, status="ok", min_score=min_score)) for side in (a, b)
    )
    pairs = pairs_of(first, second, len(copy.search.values["label"]))
    page = slice(offset, offset + PAGE // 2)
    images = (_images(copy, ids[page].tolist(), min_score) for ids in (pairs.a, pairs.b))
    return {
        "images": len(pairs.differences),
        "differing": int(np.count_nonzero(pairs.differences)),
        "page": [
            {"difference": difference, "a": image_a, "b": image_b}
            for difference, image_a, image_b in zip(pairs.differences[page].tolist(), *images, strict=True)
        ],
    }
