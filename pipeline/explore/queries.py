"""The questions that the explorer asks of a table's flat copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from pipeline.explore.build import DEFAULT_SCORE
from pipeline.explore.filters import ALL, ORDERS, Conditions, Filter, conditions
from pipeline.table.schema import SCHEMA

PAGE = 60
"""The number of images of a page."""
NUM_SCORE_BINS, MAX_BOXES_BAR = 20, 20
MAX_LISTED = 100_000
"""The most images of a list to download."""
MAX_VALUES = 200
"""The most values of a column from paths that can be chosen from a list."""
KEY = "lpad(lower(hex(key)), 16, '0') AS key"
"""The SQL of a row's name, 16 hexadecimal digits."""
IMAGE_COLUMNS = (
    f"image_id, {KEY}, uri, etag, status, run_id, run_date, model_name, model_digest, width_px, height_px, error_type"
)
OWN_COLUMNS = {*SCHEMA.names, "image_id", "key", "is_latest", "num_boxes", "best_score"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """The facts about the whole table."""

    classes: list[str]
    models: list[Row]
    runs: list[Row]
    """The runs whose rows the table has, the newest first."""
    columns: dict[str, list[str]]
    """The columns from paths, with their values if there are few."""


def path_columns(db: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the names of the columns that come from paths."""
    described = (name for name, *_ in db.execute("DESCRIBE images").fetchall())
    return [name for name in described if name not in OWN_COLUMNS]


def facts(db: duckdb.DuckDBPyConnection) -> Facts:
    """Return what can be chosen in filters."""
    columns = {}
    for name in path_columns(db):
        quoted = '"' + name.replace('"', '""') + '"'
        values = db.execute(
            f"SELECT DISTINCT coalesce({quoted}::VARCHAR, '') FROM images ORDER BY ALL LIMIT {MAX_VALUES + 1}"
        ).fetchall()
        columns[name] = [value for (value,) in values] if len(values) <= MAX_VALUES else []
    classes = db.execute("SELECT unnest(enum_range(NULL::class))::VARCHAR").fetchall()
    models = "SELECT model_digest, any_value(model_name) AS model_name, count(*) AS num_images FROM images GROUP BY 1 ORDER BY 1"
    runs = "SELECT run_id, min(run_date) AS run_date, count(*) AS num_images FROM images GROUP BY 1 ORDER BY 1 DESC"
    return Facts([name for (name,) in classes], rows(db, models), rows(db, runs), columns)


def rows(db: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return the rows of an answer by column name."""
    found: list[Row] = db.sql(sql, params=list(values)).to_arrow_table().to_pylist()
    return found


def _conditions(db: duckdb.DuckDBPyConnection, chosen: Filter) -> Conditions:
    (row,) = rows(db, "FROM versions")
    return conditions(chosen, row["are_latest"] is not False)


def _matched(chosen: Filter, found: Conditions) -> tuple[str, list[Any]]:
    """Return the SQL of the images that a filter shows, with `found` and `best` of their boxes, and its values."""
    if not chosen.is_about_boxes and chosen.min_score == DEFAULT_SCORE:
        counted = "SELECT *, num_boxes AS found, best_score AS best FROM images"
        return f"SELECT * FROM ({counted}) WHERE {found.of_images} AND {found.of_counts}", found.image_values
    boxes = (
        f"SELECT image_id, count(*) AS found, max(score) AS best FROM boxes WHERE {found.of_boxes} GROUP BY image_id"
    )
    join = "JOIN" if found.of_counts == "found > 0" else "LEFT JOIN"
    counted = f"SELECT images.*, coalesce(found, 0) AS found, best FROM images {join} ({boxes}) USING (image_id)"
    values = [*found.box_values, *found.image_values]
    return f"SELECT * FROM ({counted}) WHERE {found.of_images} AND {found.of_counts}", values


def page(db: duckdb.DuckDBPyConnection, chosen: Filter, offset: int) -> list[Row]:
    """Return a page of images with their boxes that the filter is about."""
    matched, values = _matched(chosen, _conditions(db, chosen))
    images = rows(
        db,
        f"SELECT image_id, found FROM ({matched}) ORDER BY {ORDERS[chosen.sort]} LIMIT {PAGE} OFFSET ?",
        [*values, offset],
    )
    by_id = {row["image_id"]: row for row in _rows_of_ids(db, [image["image_id"] for image in images])}
    return with_boxes(db, [by_id[image["image_id"]] | image for image in images], chosen.min_score)


def _rows_of_ids(db: duckdb.DuckDBPyConnection, ids: Sequence[int]) -> list[Row]:
    return rows(db, f"SELECT {IMAGE_COLUMNS} FROM images WHERE image_id IN ({', '.join(map(str, ids)) or 'NULL'})")


def with_boxes(db: duckdb.DuckDBPyConnection, images: list[Row], min_score: float) -> list[Row]:
    """Return the images with their boxes from a score on."""
    by_id: dict[int, list[Row]] = {image["image_id"]: [] for image in images}
    if by_id:
        ids = ", ".join(map(str, by_id))
        sql = f"SELECT * EXCLUDE (size) FROM boxes WHERE image_id IN ({ids}) AND score >= ?::FLOAT ORDER BY score DESC"
        for box in rows(db, sql, [min_score]):
            by_id[box.pop("image_id")].append(box)
    return [image | {"boxes": by_id[image["image_id"]]} for image in images]


def counts(db: duckdb.DuckDBPyConnection, chosen: Filter) -> Row:
    """Return the number of images and boxes that a filter shows, and their histograms.

    The histogram of classes is that without the filter's own classes and numbers of boxes, so that others can be chosen.
    """
    matched, values = _matched(chosen, _conditions(db, chosen))
    by_images = rows(
        db,
        f"""SELECT count(*) AS images, sum(found)::BIGINT AS boxes, run_date, least(found, {MAX_BOXES_BAR}) AS num_boxes
            FROM ({matched}) GROUP BY GROUPING SETS ((), (run_date), (least(found, {MAX_BOXES_BAR})))""",
        values,
    )
    whole = next(row for row in by_images if row["run_date"] is None and row["num_boxes"] is None)
    dates = sorted((row["run_date"], row["images"]) for row in by_images if row["run_date"] is not None)
    numbers = sorted((row["num_boxes"], row["images"]) for row in by_images if row["num_boxes"] is not None)
    scores = _of_boxes(db, chosen, f"least(floor(score * {NUM_SCORE_BINS}), {NUM_SCORE_BINS - 1})::INTEGER")
    others = chosen.model_copy(update={"label": (), "min_boxes": None, "max_boxes": None})
    labels = _of_boxes(db, others, "label")
    return {
        "images": whole["images"], "boxes": whole["boxes"] or 0, "dates": dates, "num_boxes": numbers,
        "scores": scores, "labels": sorted(labels, key=lambda pair: -pair[1]),
    }  # fmt: skip


def _of_boxes(db: duckdb.DuckDBPyConnection, chosen: Filter, group: str) -> list[tuple[Any, int]]:
    """Return the number of boxes per group, of the images that a filter shows."""
    found = _conditions(db, chosen)
    images, values = f"SELECT image_id FROM images WHERE {found.of_images}", found.image_values
    if found.limits_counts:
        images, values = _matched(chosen, found)
    is_everything = found.of_images == ALL and not found.limits_counts
    joined = "" if is_everything else f"SEMI JOIN ({images}) USING (image_id)"
    grouped = rows(
        db,
        f"SELECT {group} AS place, count(*) AS boxes FROM boxes {joined} WHERE {found.of_boxes} GROUP BY ALL ORDER BY ALL",
        [*values, *found.box_values],
    )
    return [(row["place"], row["boxes"]) for row in grouped]


def image(db: duckdb.DuckDBPyConnection, key: str) -> Row | None:
    """Return the row of a name with all its boxes; None if there is no such row."""
    found = rows(
        db, f"SELECT * REPLACE ({KEY.removesuffix(' AS key')} AS key) FROM images WHERE key = ?", [int(key, 16)]
    )
    return with_boxes(db, found[:1], 0.0)[0] if found else None


def versions(db: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> list[Row]:
    """Return the version of each named image, as a run takes it in a list."""
    chosen = ", ".join(str(int(key, 16)) for key in keys) or "NULL"
    return rows(db, f"SELECT uri, etag, size_bytes, last_modified FROM images WHERE key IN ({chosen}) ORDER BY uri")


def all_versions(db: duckdb.DuckDBPyConnection, chosen: Filter) -> list[Row]:
    """Return the version of each image that a filter shows, `MAX_LISTED` at most."""
    matched, values = _matched(chosen, _conditions(db, chosen))
    return rows(
        db, f"SELECT uri, etag, size_bytes, last_modified FROM ({matched}) ORDER BY uri LIMIT {MAX_LISTED}", values
    )


def failures(db: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return the causes of failures of the latest rows, the most frequent first, with some images each."""
    return rows(
        db,
        r"""SELECT error_stage, error_type,
                regexp_replace(coalesce(error_message, ''), '''[^'']*''|\"[^\"]*\"|[0-9]+', '…', 'g') AS message,
                count(*) AS num_images, min(run_date) AS first_date, max(run_date) AS last_date, [lpad(lower(hex(number)), 16, '0') FOR number IN min(key, 5)] AS keys
            FROM images WHERE status = 'failed' AND is_latest GROUP BY ALL
            ORDER BY num_images DESC, error_stage, error_type, message LIMIT 200""",
    )


@dataclass(frozen=True)
class Side:
    """A side of a comparison: a model's latest rows, or the rows of a run."""

    model: str | None = None
    run: str | None = None

    def condition(self) -> tuple[str, str | None]:
        """Return the SQL condition of its images, and its value."""
        return ("run_id = ?", self.run) if self.run else ("is_latest AND model_digest = ?", self.model)


def compare(db: duckdb.DuckDBPyConnection, a: Side, b: Side, min_score: float, offset: int) -> Row:
    """Return a page of the images that both sides have, those first whose numbers of boxes per class differ most.

    Returns:
        `images`, the number that both have; `differing`, how many of these differ; `page`, pairs of images with boxes.
    """
    (of_a, value_a), (of_b, value_b) = a.condition(), b.condition()
    sides = f"""sides AS (
        SELECT first.image_id AS a_id, second.image_id AS b_id
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
