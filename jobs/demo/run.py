"""The whole job on a laptop: draw pictures, detect, query, compare, annotate."""

import io
from pathlib import Path

import torch
from PIL import Image

from jobs.demo import PACKAGE
from jobs.demo.examples import to_example
from jobs.demo.pictures import CLASS_NAMES, LabelledPicture, draw_picture
from jobs.pages.draw import draw_detections
from model.average_precision import average_precisions
from model.postprocess import Detections
from pipeline.inference.run import infer
from pipeline.inference.settings import InferSettings
from pipeline.inference.summary import Summary
from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.query import query

NUM_PICTURES = 200
FIRST_SEED = 2_000_000
"""The seed of the first picture. Training drew seeds from 0, its evaluation from 1,000,000."""
BROKEN = "broken.jpg"
NUM_ANNOTATED = 8
MIN_SCORE = 0.5
QUERIES = (
    "SELECT status, count(*) AS images, sum(num_detections) AS detections FROM images GROUP BY ALL ORDER BY ALL",
    f"SELECT label, count(*) AS boxes, round(avg(score), 2) AS mean_score FROM detections WHERE score >= {MIN_SCORE} "
    "GROUP BY ALL ORDER BY boxes DESC",
    "SELECT parse_filename(uri) AS file, error_stage, error_type, error_message FROM failures",
)


def demo(output: Path) -> tuple[Summary, float]:
    """Run the demo, and print each step.

    Args:
        output: the folder for pictures, table and annotated pictures; a second demo there finds nothing left to do.

    Returns:
        The run's summary, and the mAP at IoU 0.5 of the table's detections, checked against the drawn objects.
    """
    pictures, table = output / "pictures", output / "table"
    print(f"Drawing {NUM_PICTURES} pictures into {pictures}, one of them broken", flush=True)
    truths = draw_into(pictures)
    settings = InferSettings(input=(str(pictures),), table=str(table), model=str(PACKAGE), commit_interval_s=5)
    print(f"$ ssd-batch infer --input {pictures} --table {table} --model {PACKAGE} --commit-interval-s 5", flush=True)
    summary = infer(settings)
    print(f"{summary.ok} ok, {summary.failed} failed, {summary.already_done} done before; {summary.wall_s:.1f} s")
    for sql in QUERIES:
        print(f'\n$ ssd-batch query --table {table} "{sql}"', flush=True)
        with query(ResultTable(str(table)), sql) as relation:
            relation.show(max_width=120)
    found = read_detections(table, summary.model_digest)
    mean_ap = compare(found, truths)
    print(f"\nmAP at IoU 0.5 against the {sum(len(t.labels) for t in truths.values())} objects drawn: {mean_ap:.3f}")
    annotate(found, pictures, output / "annotated")
    print(f"Annotated pictures: {output / 'annotated'}")
    print(
        f"The same on a Ray cluster of this machine: add --address local-ray, and another --table, such as {output / 'ray'}"
    )
    return summary, mean_ap


def draw_into(folder: Path) -> dict[str, LabelledPicture]:
    """Write the pictures whose file is missing or different, and return all pictures by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    truths = {}
    for index in range(NUM_PICTURES - 1):
        name = f"picture_{index:03}.jpg"
        truths[name] = draw_picture(FIRST_SEED + index)
        encoded = io.BytesIO()
        truths[name].image.save(encoded, "JPEG", quality=92)
        write_if_other(folder / name, encoded.getvalue())
    write_if_other(folder / BROKEN, encoded.getvalue()[:300])
    return truths


def write_if_other(path: Path, data: bytes) -> None:
    """Write a file, unless it has this content already: untouched, it counts as the same version."""
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)


def read_detections(table: Path, model_digest: str) -> dict[str, list[dict[str, object]]]:
    """Return a model's detections in each picture, by file name. The table may have those of others, too."""
    sql = f"SELECT uri, detections FROM images WHERE status = 'ok' AND model_digest = {literal(model_digest)}"
    with query(ResultTable(str(table)), sql) as relation:
        return {Path(uri).name: detections for uri, detections in relation.fetchall()}


def compare(found: dict[str, list[dict[str, object]]], truths: dict[str, LabelledPicture]) -> float:
    """Return the mean over the classes of average precision at IoU 0.5 (VOC, all points)."""
    detections = [
        Detections(
            torch.tensor([[d[side] for side in ("xmin", "ymin", "xmax", "ymax")] for d in found[name]]).reshape(-1, 4),
            torch.tensor([d["score"] for d in found[name]]),
            torch.tensor([d["label_id"] for d in found[name]], dtype=torch.int64),
        )
        for name in truths
    ]
    expected = [to_example(picture).truth for picture in truths.values()]
    return sum(ap.all_points for ap in average_precisions(detections, expected, len(CLASS_NAMES))) / len(CLASS_NAMES)


def annotate(found: dict[str, list[dict[str, object]]], pictures: Path, folder: Path) -> None:
    """Draw the detections into the first few pictures."""
    folder.mkdir(exist_ok=True)
    for name in sorted(found)[:NUM_ANNOTATED]:
        with Image.open(pictures / name) as image:
            draw_detections(image, found[name], MIN_SCORE).save(folder / name)
