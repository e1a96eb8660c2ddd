"""Build the flat copy of a table: `python -m pipeline.explore.build TABLE FOLDER`, in a process whose memory ends with it.

The copy is a folder. `rows.arrow` has the table's rows without their detections, and `.key`, which names a row as long as it exists. Next to it
are the columns that filters search, as arrays of numpy: `images-NAME.npy` has a value per image, `boxes-NAME.npy` one per box, both in the order
of the rows. Image i has the boxes from `boxes-first.npy[i]` up to, and without, the next one's. `values.json` has the values that numbers stand
for. The files are mapped into memory, so that only what is looked at takes any.
"""

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.explore.files import ArrayFile, MappedFiles
from pipeline.table.delta import ResultTable
from pipeline.table.results import connect
from pipeline.table.schema import SCHEMA
from pipeline.table.versions import FOUND, note_url, noted_versions

ROWS, VALUES = "rows.arrow", "values.json"
FIRST = "first"
"""The array with the number of each image's first box, and at its end the number of all boxes."""
SIDES = ("xmin", "ymin", "xmax", "ymax")
BOX_TYPES: dict[str, type[Any]] = {
    "image_id": np.int32, "label": np.uint16, "score": np.float32, "score_bin": np.uint8, "size": np.float32,
} | dict.fromkeys(SIDES, np.float32)  # fmt: skip
"""The other arrays of boxes, and the types of their numbers. In each image, the box with the best score comes first."""
DEFAULT_SCORE = 0.5
"""The score from which boxes count, unless a filter says otherwise. Their number per image is stored, and the best score."""
NUM_SCORE_BINS = 20
COLUMN = "column."
"""The beginning of the names of arrays and filters that go on with the name of a column from paths."""
MAX_VALUES = 10_000
"""The most values of a column from paths. A column with more can't be filtered by."""
BATCH = 1 << 17
"""The number of rows that are in memory at a time."""
ROWS_TOGETHER = 2048
"""The number of rows that lie together in the file: a row that is looked up brings their pages into memory."""
ALL_ROWS = """
    SELECT md5_number_lower(concat_ws(chr(0), results.uri, results.etag, results.model_digest)) AS ".key",
        versions.latest IS NULL OR results.etag IN (versions.latest, versions.latest_ok) AS ".is_latest", results.*
    FROM results LEFT JOIN versions ON results.uri = versions.uri AND results.model_digest = versions.model_digest
"""
"""The SQL that reads the table. The columns that the table does not have begin with a dot, as no column from paths does."""
LEFT_OUT = ("detections", "num_detections", "max_score")


def build(url: str, folder: Path) -> None:
    """Write the copy of a table's current version. The folder appears whole, or not at all."""
    table = ResultTable(url)
    files = table.data_files()
    note = note_url(table, files)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed, and had this one's number
    partial.mkdir(mode=0o700)
    try:
        with connect(table, [note], files) as db:
            db.execute(f"CREATE VIEW versions AS {noted_versions(db, table, note, FOUND)}")
            classes = copy_rows(db.sql(ALL_ROWS).to_arrow_reader(BATCH), partial)
        values = save_images(MappedFiles(partial).table(ROWS), partial) | {"label": classes}
        (partial / VALUES).write_bytes(msgspec.json.encode(values))
        try:
            os.replace(partial, folder)
        except OSError:
            if not folder.exists():  # else another explorer was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_rows(batches: pa.RecordBatchReader, folder: Path) -> list[str]:
    """Write the rows and the arrays of boxes, and return the classes."""
    kept = [name for name in batches.schema.names if name not in LEFT_OUT]
    schema = pa.schema([batches.schema.field(name) for name in kept])
    classes: list[str] = []
    with ExitStack() as stack:
        rows = stack.enter_context(pa.ipc.new_file(str(folder / ROWS), schema))
        types = {f"boxes-{name}": dtype for name, dtype in ({FIRST: np.int64} | BOX_TYPES).items()}
        types |= {"images-num_boxes": np.int32, "images-best_score": np.float32}
        files = {name: stack.enter_context(ArrayFile(folder / f"{name}.npy", dtype)) for name, dtype in types.items()}
        num_images = num_boxes = 0
        for batch in batches:
            rows.write_table(pa.Table.from_batches([batch.select(kept)]), max_chunksize=ROWS_TOGETHER)
            counts = pc.fill_null(pc.list_value_length(batch["detections"]), 0).to_numpy()
            first = np.cumsum(counts) - counts
            image_ids = np.repeat(np.arange(len(counts)), counts)
            boxes = columns_of_boxes(batch, image_ids, classes)
            counted = np.bincount(image_ids[boxes["score"] >= np.float32(DEFAULT_SCORE)], minlength=len(counts))
            best = np.full(len(counts), np.nan, np.float32)
            best[counted > 0] = boxes["score"][first[counted > 0]]
            written = {f"boxes-{name}": column for name, column in boxes.items()} | {
                "boxes-image_id": num_images + image_ids, f"boxes-{FIRST}": num_boxes + first,
                "images-num_boxes": counted, "images-best_score": best,
            }  # fmt: skip
            for name, array in written.items():
                files[name].append(array)
            num_images, num_boxes = num_images + len(counts), num_boxes + len(image_ids)
        files[f"boxes-{FIRST}"].append(np.array([num_boxes]))
    labels = np.load(folder / "boxes-label.npy", mmap_mode="r+")
    ordered = sorted(classes)
    labels[:] = np.array([ordered.index(name) for name in classes], np.uint16)[labels]
    return ordered


def columns_of_boxes(batch: pa.RecordBatch, image_ids: NDArray[np.intp], classes: list[str]) -> dict[str, NDArray[Any]]:
    """Return the columns of a batch's boxes. In each image, the box with the best score comes first.

    The size of a box is the square root of its share of the image.

    Args:
        batch: rows of the table.
        image_ids: the row of each box in the batch.
        classes: the labels that are known. New ones are added.
    """
    boxes = batch["detections"].flatten()
    labels = pc.fill_null(pc.struct_field(boxes, "label"), "").dictionary_encode()
    names = labels.dictionary.to_pylist()
    classes += [name for name in names if name not in classes]
    found = {name: pc.struct_field(boxes, name).to_numpy(zero_copy_only=False) for name in ("score", *SIDES)}
    area = np.maximum((found["xmax"] - found["xmin"]) * (found["ymax"] - found["ymin"]), 0)
    num_pixels = pc.multiply(batch["width_px"].cast(pa.float32()), batch["height_px"]).to_numpy(zero_copy_only=False)
    found |= {
        "label": np.array([classes.index(name) for name in names], np.uint16)[labels.indices.to_numpy()],
        "score_bin": np.minimum(found["score"] * NUM_SCORE_BINS, NUM_SCORE_BINS - 1),
        "size": np.nan_to_num(np.sqrt(area / num_pixels[image_ids])),
    }
    keys = (image_ids << 32) - found["score"].view(np.int32)  # the bits of positive numbers are in their order
    if (np.diff(keys) < 0).any():
        order = np.argsort(keys)
        found = {name: column[order] for name, column in found.items()}
    return found


def save_images(rows: pa.Table, folder: Path) -> dict[str, list[str]]:
    """Write the arrays of images, and return the values that their numbers stand for."""
    # A column that somebody added may be a list, for example, which nothing can be filtered by.
    of_paths = {
        COLUMN + field.name: field.name
        for field in rows.schema
        if field.name not in SCHEMA.names and not field.name.startswith(".") and not pa.types.is_nested(field.type)
    }
    values: dict[str, list[str]] = {}
    for name, column in {"run_id": "run_id", "model_digest": "model_digest", **of_paths}.items():
        texts = pc.fill_null(rows[column].cast(pa.string()), "")
        distinct = pc.unique(texts).sort()
        if name in of_paths and len(distinct) > MAX_VALUES:
            continue
        values[name] = distinct.to_pylist()
        codes = pc.index_in(texts, distinct).to_numpy()
        np.save(folder / f"images-{name}.npy", codes.astype(np.min_scalar_type(len(distinct))))
    plain = {
        "key": rows[".key"], "is_latest": rows[".is_latest"], "is_failed": pc.equal(rows["status"], "failed"),
        "run_date": rows["run_date"].cast(pa.int32()),
        "uri": pc.rank(rows["uri"], "ascending", tiebreaker="dense").cast(pa.int32()),
    }  # fmt: skip
    for name, values_of in plain.items():
        np.save(folder / f"images-{name}.npy", np.asarray(values_of))
    return values


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
