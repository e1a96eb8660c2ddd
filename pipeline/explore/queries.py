"""The questions that the explorer asks of a table's flat copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.explore.build import COLUMN
from pipeline.explore.cache import Copy
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
IMAGE_COLUMNS = (
    f'".image_id" AS image_id, {KEY} AS key, uri, etag, size_bytes, status, run_id, run_date, model_name, model_digest, '
    "width_px, height_px, error_type"
)
VERSION_COLUMNS = "uri, etag, size_bytes, last_modified"

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
    with copy.cursor() as db:
        models = rows(db, "SELECT model_digest, any_value(model_name) AS model_name FROM images GROUP BY 1 ORDER BY 1")
    return Facts(values["label"], models, values["run_id"][::-1], columns)


def rows(db: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return the rows of an answer by column name."""
    found: list[Row] = db.sql(sql, params=list(values)).to_arrow_table().to_pylist()
    return found


def page(copy: Copy, chosen: Filter, offset: int) -> list[Row]:
    """Return a page of images with their boxes from the filter's score on; `found` is the number that the filter is about."""
    found = copy.search.find(chosen)
    ids = copy.search.page(found, chosen.sort, offset, PAGE)
    with copy.cursor() as db:
        by_id = {row["image_id"]: row for row in _rows_of_ids(db, ids)}
        images = [by_id[image_id] | {"found": int(found.num_boxes[image_id])} for image_id in ids]
        return with_boxes(db, images, chosen.min_score)


def _rows_of_ids(db: duckdb.DuckDBPyConnection, ids: Sequence[int]) -> list[Row]:
    chosen = ", ".join(map(str, ids)) or "NULL"
    return rows(db, f'SELECT {IMAGE_COLUMNS} FROM images WHERE ".image_id" IN ({chosen})')


def with_boxes(db: duckdb.DuckDBPyConnection, images: list[Row], min_score: float) -> list[Row]:
    """Return the images with their boxes from a score on."""
    by_id: dict[int, list[Row]] = {image["image_id"]: [] for image in images}
    if by_id:
        ids = ", ".join(map(str, by_id))
        sql = f"SELECT * EXCLUDE (size) FROM boxes WHERE image_id IN ({ids}) AND score >= ?::FLOAT ORDER BY score DESC"
        for box in rows(db, sql, [min_score]):
            by_id[box.pop("image_id")].append(box)
    return [image | {"boxes": by_id[image["image_id"]]} for image in images]


def image(copy: Copy, key: str) -> Row | None:
    """Return the image of a name with all its boxes, and its `row` of the table; None if there is no such row."""
    of_key, value = 'FROM images WHERE ".key" = ? LIMIT 1', [int(key, 16)]
    with copy.cursor() as db:
        found = rows(db, f"SELECT {IMAGE_COLUMNS} {of_key}", value)
        if not found:
            return None
        (row,) = rows(db, f"SELECT * {of_key}", value)
        (shown,) = with_boxes(db, found, 0.0)
    return shown | {"row": {name: value for name, value in row.items() if not name.startswith(".")}}


def versions(copy: Copy, keys: Sequence[str]) -> list[Row]:
    """Return the version of each named image, as a run takes it in a list."""
    chosen = ", ".join(str(int(key, 16)) for key in keys) or "NULL"
    with copy.cursor() as db:
        return rows(db, f'SELECT {VERSION_COLUMNS} FROM images WHERE ".key" IN ({chosen}) ORDER BY uri')


def all_versions(copy: Copy, chosen: Filter) -> list[Row]:
    """Return the version of each image that a filter shows, by name, `MAX_LISTED` at most."""
    ids = copy.search.page(copy.search.find(chosen), "name", 0, MAX_LISTED)
    with copy.cursor() as db:
        db.register("chosen", pa.table({".image_id": pa.array(ids, pa.int32())}))
        return rows(
            db, f'SELECT {VERSION_COLUMNS} FROM images SEMI JOIN chosen USING (".image_id") ORDER BY uri, ".image_id"'
        )


def failures(copy: Copy) -> list[Row]:
    """Return the causes of failures of the latest rows, the most frequent first, with some images each."""
    with copy.cursor() as db:
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

    def condition(self) -> tuple[str, str | None]:
        """Return the SQL condition of its images, and its value."""
        return ("run_id = ?", self.run) if self.run else ('".is_latest" AND model_digest = ?', self.model)


def compare(copy: Copy, a: Side, b: Side, min_score: float, offset: int) -> Row:
    """Return a page of the images that both sides have, those first whose numbers of boxes per class differ most.

    Returns:
        `images`, the number that both have; `differing`, how many of these differ; `page`, pairs of images with boxes.
    """
    (of_a, value_a), (of_b, value_b) = a.condition(), b.condition()
    sides = f"""sides AS (
        SELECT first.".image_id" AS a_id, second.".image_id" AS b_id
        FROM (FROM images WHERE {of_a} AND status = 'ok') AS first JOIN (FROM images WHERE {of_b} AND status = 'ok') AS second USING (uri)
    ), differences AS (
        SELECT a_id, b_id, label, sum(sign) AS difference FROM (
            SELECT a_id, b_id, label, 1 AS sign FROM sides JOIN boxes ON image_id = a_id WHERE score >= ?::FLOAT
            UNION ALL
            SELECT a_id, b_id, label, -1 FROM sides JOIN boxes ON image_id = b_id WHERE score >= ?::FLOAT
        ) GROUP BY ALL
    ), by_image AS (
        SELECT a_id, b_id, coalesce(sum(abs(difference)), 0)::BIGINT AS difference
        FROM sides LEFT JOIN differences USING (a_id, b_id) GROUP BY ALL
    )"""
    values = [value_a, value_b, min_score, min_score]
    with copy.cursor() as db:
        (total,) = rows(
            db,
            f"WITH {sides} SELECT count(*) AS images, count(*) FILTER (difference > 0) AS differing FROM by_image",
            values,
        )
        pairs = rows(
            db,
            f"WITH {sides} SELECT * FROM by_image ORDER BY difference DESC, a_id LIMIT {PAGE // 2} OFFSET ?",
            [*values, offset],
        )
        shown = _rows_of_ids(db, [pair[side] for pair in pairs for side in ("a_id", "b_id")])
        by_id = {found["image_id"]: found for found in with_boxes(db, shown, min_score)}
    return total | {
        "page": [
            {"difference": pair["difference"], "a": by_id[pair["a_id"]], "b": by_id[pair["b_id"]]} for pair in pairs
        ]
    }
