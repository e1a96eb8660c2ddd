"""Measure the CPU time per image from detections to committed rows of a table, next to rows that are made as dicts.

Detections come as the postprocessing returns them, in blocks of a run. Ours are columns from the start, and are committed to a
Delta table. The other side makes a dict per box and writes plain Parquet files, as scripts do.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.postprocess import Detections
from pipeline.stages.detect import detection_columns
from pipeline.stages.rows import finish, numbered
from pipeline.table.delta import ResultTable
from pipeline.table.schema import SCHEMA
from tests.benchmarks.sides import report, spread

BLOCK_ROWS = 64
CLASS_NAMES = ["", *(f"class {label}" for label in range(1, 91))]
CONSTANTS = {"model_name": "ssd", "model_digest": "d" * 64, "run_id": "20261129T000000Z-00000000"}


def make(num_boxes: int) -> list[Detections | None]:
    """Return the detections of a block."""
    generator = torch.Generator().manual_seed(0)
    images: list[Detections | None] = []
    for _ in range(BLOCK_ROWS):
        boxes, scores = (torch.rand(num_boxes, size, generator=generator) for size in (4, 1))
        labels = torch.randint(1, 91, (num_boxes,), generator=generator)
        images.append(Detections(boxes * 300, scores[:, 0], labels))
    return images


def planned() -> pa.Table:
    """Return the planned rows of a block."""
    names = [f"s3://photos/{number:09}.jpg" for number in range(BLOCK_ROWS)]
    columns = {
        "uri": names,
        "etag": [f"{number:032x}" for number in range(BLOCK_ROWS)],
        "size_bytes": [20_000] * BLOCK_ROWS,
    }
    return numbered(pa.table(columns), 0)


def as_columns(blocks: int, found: list[Detections | None], table: ResultTable) -> None:
    """Make rows as a run does, and commit them once."""
    names, rows = pa.array(CLASS_NAMES), planned()
    images: list[dict[str, Any]] = [{"width_px": 640, "height_px": 480, "num_attempts": 1} for _ in range(BLOCK_ROWS)]
    made = [finish(rows, images, CONSTANTS, SCHEMA, **detection_columns(found, names)) for _ in range(blocks)]
    table.append(pa.concat_tables(made).drop_columns([".row"]))


def as_dicts(blocks: int, found: list[Detections | None], folder: Path) -> None:
    """Make a dict per box and per image."""
    for number in range(blocks):
        rows = []
        for index, image in enumerate(found):
            assert image is not None
            boxes = zip(image.labels.tolist(), image.scores.tolist(), image.boxes_xyxy.tolist(), strict=True)
            detections = [
                {"label_id": label, "label": CLASS_NAMES[label], "score": score, "xmin": box[0], "ymin": box[1], "xmax": box[2], "ymax": box[3]}
                for label, score, box in boxes
            ]  # fmt: skip
            rows.append({"uri": f"s3://photos/{index:09}.jpg", **CONSTANTS, "detections": detections})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{number}.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=40, help=f"blocks of {BLOCK_ROWS} images per round")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    lines, figures = [], {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        table, folder = ResultTable(f"{name}/table"), Path(name, "dicts")
        table.create()
        folder.mkdir()
        for num_boxes in (8, 100):
            found = make(num_boxes)
            sides = {
                "columns": partial(as_columns, options.blocks, found, table),
                "dicts": partial(as_dicts, options.blocks, found, folder),
            }
            took: dict[str, list[float]] = {side: [] for side in sides}
            for number in range(options.rounds + 1):
                for side, run in sides.items():
                    begun_s = time.process_time()
                    run()
                    if number:
                        took[side].append((time.process_time() - begun_s) / (options.blocks * BLOCK_ROWS) * 1000)
            ratios = [theirs / ours for ours, theirs in zip(took["columns"], took["dicts"], strict=True)]
            figures[num_boxes] = {"cpu_ms_per_image": took, "dicts_to_columns": ratios}
            lines.append(
                f"{num_boxes:3} boxes: columns {spread(took['columns'], 3)} ms per image, dicts {spread(took['dicts'], 3)}: "
                f"{spread(ratios, 1)} times"
            )
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
