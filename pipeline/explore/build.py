"""Build the flat copy of a table: `python -m pipeline.explore.build TABLE FILE`, in a process whose memory ends with it.

The copy is a DuckDB file with four tables. `images` has one row per row of the table, with its columns but `detections`, and
`is_latest` for those of the view `images`, and `key`, which names a row as long as it exists. `boxes` has one row per box, `versions` says whether all rows are the latest, and `about` when the copy was made.
"""

import os
import sys
import time
from pathlib import Path

from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.results import connect
from pipeline.table.versions import FOUND, note_url, noted_versions

DEFAULT_SCORE = 0.5
"""The score from which boxes count, unless a filter says otherwise. Their number per image is stored."""
COUNTED = f"list_filter(detections, lambda box: box.score >= {DEFAULT_SCORE}::FLOAT)"
STEPS = (
    """CREATE TEMP TABLE everything AS
        SELECT (row_number() OVER () - 1)::INTEGER AS image_id,
            md5_number_lower(concat_ws(chr(0), results.uri, results.etag, results.model_digest)) AS key,
            versions.latest IS NULL OR results.etag IN (versions.latest, versions.latest_ok) AS is_latest, results.*
        FROM results LEFT JOIN versions ON results.uri = versions.uri AND results.model_digest = versions.model_digest""",
    """CREATE TYPE copy.class AS ENUM (
        SELECT DISTINCT label FROM (SELECT unnest(detections, recursive := true) FROM everything) WHERE label IS NOT NULL ORDER BY label
    )""",
    "CREATE TABLE copy.versions AS SELECT bool_and(is_latest) AS are_latest FROM everything",
    f"""CREATE TABLE copy.images AS
        SELECT * EXCLUDE (detections, num_detections, max_score), coalesce(len({COUNTED}), 0)::INTEGER AS num_boxes,
            list_max(list_transform({COUNTED}, lambda box: box.score)) AS best_score
        FROM everything""",
    """CREATE TABLE copy.boxes AS
        SELECT image_id, label::copy.class AS label, score,
            sqrt(greatest((xmax - xmin) * (ymax - ymin), 0) / (width_px * height_px))::FLOAT AS size, xmin, ymin, xmax, ymax
        FROM (SELECT image_id, width_px, height_px, unnest(detections, recursive := true) FROM everything)""",
)
"""The SQL that makes the tables, in order. The size of a box is the square root of its share of the image."""


def build(url: str, path: Path) -> None:
    """Write the copy of a table's current version. It appears whole, or not at all."""
    begun_s, table = time.perf_counter(), ResultTable(url)
    files = table.data_files()
    note = note_url(table, files)
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        with connect(table, [note], files) as db:
            db.execute(f"CREATE VIEW versions AS {noted_versions(db, table, note, FOUND)}")
            db.execute(f"ATTACH {literal(str(partial))} AS copy")
            for step in STEPS:
                db.execute(step)
            db.execute(
                "CREATE TABLE copy.about AS SELECT ?::VARCHAR AS table_url, ?::DOUBLE AS build_s, now() AS built_at",
                [table.url, time.perf_counter() - begun_s],
            )
            db.execute("DETACH copy")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
