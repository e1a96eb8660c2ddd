"""Labelled data through the commands, as processes: looked through and measured on; on disk and on S3."""

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.demo import PACKAGE
from jobs.demo.pictures import CLASS_NAMES, draw_picture
from tests.e2e.command import run

pytestmark = pytest.mark.slow


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Drawn pictures in COCO's layout: splits of nine and three, and category ids with holes."""
    root = tmp_path / "shapes"
    categories = [{"id": 10 * label, "name": name} for label, name in enumerate(CLASS_NAMES, start=1)]
    for split, seeds in (("train", range(9)), ("val", range(9, 12))):
        images, annotations = [], []
        for seed in seeds:
            picture = draw_picture(seed)
            (root / split).mkdir(parents=True, exist_ok=True)
            picture.image.save(root / split / f"{seed}.jpg")
            width_px, height_px = picture.image.size
            images.append({"id": seed, "file_name": f"{seed}.jpg", "width": width_px, "height": height_px})
            corners = np.concatenate(
                (picture.boxes_xyxy[:, :2], picture.boxes_xyxy[:, 2:] - picture.boxes_xyxy[:, :2]), axis=1
            )
            annotations += [
                {
                    "id": len(annotations) + number,
                    "image_id": seed,
                    "category_id": 10 * int(label),
                    "bbox": box,
                    "iscrowd": 0,
                }
                for number, (label, box) in enumerate(zip(picture.labels, corners.tolist(), strict=True))
            ]
        (root / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def test_data_is_looked_through(shapes: Path, tmp_path: Path) -> None:
    code, out, err = run("data", "check", "--data", shapes, "--output", tmp_path / "page.html", "--json")
    report = json.loads(out)
    assert (code, report["is_sound"], report["splits"]["train"]["num_images"]) == (0, True, 9), err
    assert (tmp_path / "page.html").stat().st_size < 1 << 20

    (shapes / "val/9.jpg").write_bytes((shapes / "train/0.jpg").read_bytes())
    code, out, err = run("data", "check", "--data", shapes)
    assert code == 1, err
    assert "error: val: images that are in an earlier split, too: 1" in out
    code, _, err = run("data", "check", "--data", shapes, "--split", "test")
    assert (code, "no data has the split 'test'" in err, "Traceback" in err) == (2, True, False)


@pytest.mark.s3
def test_data_on_s3_is_looked_through_and_measured_on(shapes: Path, upload) -> None:
    url = upload(shapes)
    code, out, err = run("data", "check", "--data", url, "--output", f"{url}/page.html", "--json")
    assert (code, json.loads(out)["is_sound"]) == (0, True), err
    code, out, err = run("evaluate", "--data", url, "--split", "val", "--model", PACKAGE, "--json")
    assert code == 0, err
    metrics = json.loads(out)
    assert {"num_images", "map", "map50", "voc_map_11pt", "voc_map_all", "per_class"} <= metrics.keys()
    assert metrics["num_images"] == 3
    assert 0.5 < metrics["map"] < metrics["map50"] <= 1
