"""Build the flat copy of a table: `python -m pipeline.explore.build TABLE FOLDER`, in a process whose memory ends with it.

The copy is a folder. `rows.duckdb` has the rows: `images` has the columns of the table but `detections`, and `.key`, which names a row
as long as it exists; `boxes` has one row per box. Next to it are the columns that filters search, as arrays of numpy: `images-NAME.npy`
has a value per row of `images`, `boxes-NAME.npy` one per row of `boxes`, both in the order of `image_id`. Image i has the boxes
from `boxes-first.npy[i]` up to, and without, the next one's. `values.json` has the values that the numbers stand for.
"""

import os
import shutil
import sys
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.results import connect
from pipeline.table.schema import SCHEMA
from pipeline.table.versions import FOUND, note_url, noted_versions

ROWS, VALUES = "rows.duckdb", "values.json"
DEFAULT_SCORE = 0.5
"""The score from which boxes count, unless a filter says otherwise. Their number per image is stored."""
NUM_SCORE_BINS = 20
COLUMN = "column."
"""The beginning of the names of arrays and filters that go on with the name of a column from paths."""
MAX_VALUES = 10_000
"""The most values of a column from paths. A column with more can't be filtered by."""
COUNTED = f"list_filter(detections, lambda box: box.score >= {DEFAULT_SCORE}::FLOAT)"
STEPS = (
    """CREATE TEMP TABLE everything AS
        SELECT md5_number_lower(concat_ws(chr(0), results.uri, results.etag, results.model_digest)) AS ".key",
            versions.latest IS NULL OR results.etag IN (versions.latest, versions.latest_ok) AS ".is_latest", results.*
        FROM results LEFT JOIN versions ON results.uri = versions.uri AND results.model_digest = versions.model_digest""",
    """CREATE TYPE copy.class AS ENUM (
        SELECT DISTINCT label FROM (SELECT unnest(detections, recursive := true) FROM everything) WHERE label IS NOT NULL ORDER BY label
    )""",
    f"""CREATE TABLE copy.images AS
        SELECT rowid::INTEGER AS ".image_id", * EXCLUDE (detections, num_detections, max_score), coalesce(len({COUNTED}), 0)::INTEGER AS ".num_boxes",
            list_max(list_transform({COUNTED}, lambda box: box.score)) AS ".best_score"
        FROM everything ORDER BY ".image_id"
    """,
    """CREATE TABLE copy.boxes AS
        SELECT ".image_id" AS image_id, label::copy.class AS label, score,
            sqrt(greatest((xmax - xmin) * (ymax - ymin), 0) / (width_px * height_px))::FLOAT AS size, xmin, ymin, xmax, ymax
        FROM (SELECT rowid::INTEGER AS ".image_id", width_px, height_px, unnest(detections, recursive := true) FROM everything)
        ORDER BY ".image_id"
    """,
)
"""The SQL that makes the tables, in order. The size of a box is the square root of its share of the image.

The columns of `images` that the table does not have begin with a dot, as no column from paths does. `rowid` counts the rows of a table, in order and
from 0; a window function would count them in one thread.
"""


def build(url: str, folder: Path) -> None:
    """Write the copy of a table's current version. The folder appears whole, or not at all."""
    table = ResultTable(url)
    files = table.data_files()
    note = note_url(table, files)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    partial.mkdir(mode=0o700)
    try:
        with connect(table, [note], files) as db:
            db.execute(f"CREATE VIEW versions AS {noted_versions(db, table, note, FOUND)}")
            db.execute(f"ATTACH {literal(str(partial / ROWS))} AS copy")
            for step in STEPS:
                db.execute(step)
            db.execute("DROP TABLE everything")
            save_columns(db, partial)
            db.execute("DETACH copy")
        try:
            os.replace(partial, folder)
        except OSError:
            if not folder.exists():  # else another explorer was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_columns(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the arrays, and the values that their numbers stand for."""
    described = [name for name, *_ in db.execute("DESCRIBE copy.images").fetchall()]
    of_paths = {COLUMN + name: name for name in described if name not in SCHEMA.names and not name.startswith(".")}
    values: dict[str, list[str]] = {}
    for name, column in {"run_id": "run_id", "model_digest": "model_digest", **of_paths}.items():
        if (found := _codes(_column(db, "images", f"coalesce(\"{column}\"::VARCHAR, '')"))) is None:
            continue
        values[name], codes = found
        np.save(folder / f"images-{name}.npy", codes)
    plain = {
        "is_latest": '".is_latest"', "is_failed": "status = 'failed'", "run_date": "run_date - DATE '1970-01-01'",
        "num_boxes": '".num_boxes"', "best_score": "coalesce(\".best_score\", 'NaN'::FLOAT)",
        "name_order": '(row_number() OVER (ORDER BY uri, ".image_id") - 1)::INTEGER',
    }  # fmt: skip
    for name, sql in plain.items():
        array = _column(db, "images", sql).to_numpy()
        np.save(folder / f"images-{name}.npy", array.astype(np.int32) if name == "run_date" else array)
    values["label"] = [
        name for (name,) in db.execute("SELECT unnest(enum_range(NULL::copy.class))::VARCHAR").fetchall()
    ]
    label = f"enum_code(label)::{'UTINYINT' if len(values['label']) <= 256 else 'USMALLINT'}"
    for name, sql in {"label": label, "score": "score", "size": "coalesce(size, 0)"}.items():
        np.save(folder / f"boxes-{name}.npy", _column(db, "boxes", sql).to_numpy())
    (num_images,) = db.execute("SELECT count(*) FROM copy.images").fetchall()[0]
    owners = _column(db, "boxes", "image_id").to_numpy()
    np.save(folder / "boxes-first.npy", np.searchsorted(owners, np.arange(num_images + 1)))
    scores: NDArray[np.float32] = np.load(folder / "boxes-score.npy", mmap_mode="r")
    np.save(folder / "boxes-score_bin.npy", np.minimum(scores * NUM_SCORE_BINS, NUM_SCORE_BINS - 1).astype(np.uint8))
    (folder / VALUES).write_bytes(msgspec.json.encode(values))


def _column(db: duckdb.DuckDBPyConnection, table: str, sql: str) -> pa.ChunkedArray:
    order = '".image_id"' if table == "images" else "image_id"
    return db.sql(f'SELECT {sql} AS ".value" FROM copy.{table} ORDER BY {order}').to_arrow_table()[".value"]


def _codes(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.uint16]] | None:
    """Return the distinct values in order, and the number of each row's value; None if there are too many."""
    values = pc.unique(column).sort()
    if len(values) > MAX_VALUES:
        return None
    codes = pc.index_in(column, values).to_numpy()
    return values.to_pylist(), codes.astype(np.uint16)


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
