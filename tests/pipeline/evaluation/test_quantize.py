"""The command's work, on the demo's model and pictures."""

import json
from pathlib import Path

import pytest

from jobs.demo import PACKAGE
from jobs.demo.pictures import draw_picture
from pipeline.errors import SettingError, TargetMissedError
from pipeline.evaluation.quantize import Quantized, quantize_on_data
from pipeline.evaluation.settings import QuantizeSettings
from pipeline.inference.run import infer
from pipeline.inference.settings import InferSettings
from pipeline.registry.packages import read_package
from pipeline.registry.publish import publish
from pipeline.table.delta import ResultTable
from pipeline.table.query import query

pytestmark = pytest.mark.slow

NUM_PICTURES = 24
MODEL = read_package(str(PACKAGE))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures, in COCO's layout; train and val are the same ones."""
    root = tmp_path_factory.mktemp("data")
    images, annotations = [], []
    (root / "train").mkdir()
    for number in range(NUM_PICTURES):
        picture = draw_picture(4_000_000 + number)
        picture.image.save(root / f"train/{number}.jpg", quality=92)
        width, height = picture.image.size
        images.append({"id": number, "file_name": f"{number}.jpg", "width": width, "height": height})
        for (xmin, ymin, xmax, ymax), label in zip(picture.boxes_xyxy.tolist(), picture.labels.tolist(), strict=True):
            box = {"bbox": [xmin, ymin, xmax - xmin, ymax - ymin], "area": (xmax - xmin) * (ymax - ymin), "iscrowd": 0}
            annotations.append({"id": len(annotations), "image_id": number, "category_id": label, **box})
    categories = [{"id": label, "name": name} for label, name in enumerate(MODEL.record.class_names, start=1)]
    (root / "annotations").mkdir()
    for split, labelled in (("train", annotations), ("val", annotations), ("none", [])):
        content = {"images": images, "annotations": labelled, "categories": categories}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
        if split != "train":
            (root / split).symlink_to("train")
    return root


def settings(data: Path, output: Path, **more: object) -> QuantizeSettings:
    return QuantizeSettings(model=str(PACKAGE), data=(str(data),), output=str(output), **more)


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    output = tmp_path_factory.mktemp("models") / "int8"
    return quantize_on_data(settings(data, output, num_calibration_images=16, max_map_loss=0.05))


def test_a_quantized_package_has_nearly_the_quality(done: Quantized) -> None:
    assert done.float_map > 0.3
    assert abs(done.map - done.float_map) < 0.05
    package = read_package(done.output)
    assert package.digest == done.model_digest != MODEL.digest == done.quantized_from
    assert package.record.metrics["map"] == done.map
    assert package.record.metrics["float_map"] == done.float_map
    assert package.record.provenance["calibration"] == {"split": "train", "num_images": 16, "seed": 0}


def test_it_is_published_and_detects(done: Quantized, data: Path, tmp_path: Path) -> None:
    published = publish(done.output, str(tmp_path / "models"), "latest")
    assert published.model_digest == done.model_digest
    table = str(tmp_path / "table")
    run = {"input": (str(data / "train"),), "table": table, "num_detectors": 1}
    summary = infer(InferSettings(model=f"{tmp_path}/models/latest", **run))
    assert (summary.ok, summary.failed, summary.model_digest) == (NUM_PICTURES, 0, done.model_digest)
    with query(ResultTable(table), "SELECT engine, peak_images_per_s FROM runs") as relation:
        ((engine, peak),) = relation.fetchall()
    assert engine.startswith("openvino ")
    assert engine.endswith(" int8")
    assert peak > 0
    as_floats = infer(InferSettings(model=str(PACKAGE), **run))
    assert as_floats.planned == NUM_PICTURES  # another digest: results never mix


@pytest.mark.parametrize("flags", [{"precision": "bf16"}, {"precision": "fp32"}])
def test_another_precision_is_refused_before_anything_starts(
    done: Quantized, data: Path, tmp_path: Path, flags
) -> None:
    table = tmp_path / "table"
    with pytest.raises(SettingError, match="stands for results in int8"):
        infer(InferSettings(model=done.output, input=(str(data / "train"),), table=str(table), **flags))
    assert not table.exists()


def test_too_great_a_loss_writes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.quantize.quantize", lambda package, images: worse(package))
    with pytest.raises(TargetMissedError, match=r"it loses 0\.\d+, more than 0.003; calibrate with more images"):
        quantize_on_data(settings(data, tmp_path / "int8"))
    assert not (tmp_path / "int8").exists()


def worse(package):
    """Half of the weights are gone."""
    weights = {name: tensor * (tensor > 0) for name, tensor in package.weights.items()}
    return type(package)(package.record, weights)


def test_a_quantized_package_is_not_quantized_again(done: Quantized, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is quantized already; give the package that it was made of"):
        quantize_on_data(settings(data, tmp_path / "int8").model_copy(update={"model": done.output}))


def test_data_without_objects_measures_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="has no objects to measure on"):
        quantize_on_data(settings(data, tmp_path / "int8", split="none"))
