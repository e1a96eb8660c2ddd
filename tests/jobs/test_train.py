"""From labelled images to a measured package."""

import json
from pathlib import Path

import pytest

from jobs.demo.pictures import CLASS_NAMES, draw_picture
from jobs.evaluate import evaluate_voc
from jobs.settings import TrainSettings
from jobs.train import train_voc
from pipeline.errors import SettingError
from pipeline.packages import read_package

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voc")
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for seed in range(12):
        picture = draw_picture(seed)
        picture.image.save(root / f"JPEGImages/{seed}.jpg")
        objects = zip(picture.labels, picture.boxes_xyxy.astype(int), strict=True)
        drawn = "".join(OBJECT.format(CLASS_NAMES[label - 1], *box) for label, box in objects)
        text = f"<annotation><filename>{seed}.jpg</filename>{drawn}</annotation>"
        (root / f"Annotations/{seed}.xml").write_text(text)
    (root / "ImageSets/Main/train.txt").write_text("\n".join(map(str, range(9))))
    (root / "ImageSets/Main/val.txt").write_text("9\n10\n11\n")
    return root


def settings(voc: Path, output: Path, **more: object) -> TrainSettings:
    few = {"num_steps": 2, "batch_size": 2, "width": 0.05, "num_workers": 0}
    return TrainSettings(data=str(voc), output=str(output), name="shapes", **{**few, **more})


def test_a_training_leaves_a_package_with_its_metrics(voc: Path, tmp_path: Path) -> None:
    metrics = train_voc(settings(voc, tmp_path / "model", seed=5))
    package = read_package(str(tmp_path / "model"))
    assert set(package.record.class_names) <= set(CLASS_NAMES)
    assert json.loads(json.dumps(metrics)) == package.record.metrics
    assert package.record.provenance["settings"]["seed"] == 5
    assert (metrics["num_images"], set(metrics["per_class"]) <= set(CLASS_NAMES)) == (3, True)

    again = evaluate_voc(str(tmp_path / "model"), str(voc), "val")
    assert again.items() <= metrics.items()


def test_a_training_of_ssd512(voc: Path, tmp_path: Path) -> None:
    train_voc(settings(voc, tmp_path / "model", architecture="ssd512_vgg16", num_steps=1))
    architecture = read_package(str(tmp_path / "model")).record.architecture
    assert (architecture.kind, architecture.image_size_px, architecture.width) == ("ssd512_vgg16", 512, 0.05)


def test_a_training_stops_before_it_starts(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no such file.*split 'other'"):
        train_voc(settings(voc, tmp_path / "model", train_split="other"))
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(SettingError, match="holds a model package already"):
        train_voc(settings(voc, tmp_path))
