"""The demo's package on pictures that it was not trained on."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from jobs.demo import PACKAGE
from jobs.demo.examples import DrawnExamples
from pipeline.errors import SettingError
from pipeline.evaluation.evaluate import evaluate, evaluate_on_data, read_examples
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.registry.packages import read_package
from pipeline.settings import DetectionSettings

pytestmark = pytest.mark.slow


def settings(data: Path) -> EvaluateSettings:
    return EvaluateSettings(model=str(PACKAGE), data=(str(data),), split="train")


def test_both_figures_at_half_overlap_agree() -> None:
    """COCO's recalls are 101 and VOC's all: so few objects move it by a step or two."""
    package, examples = read_package(str(PACKAGE)), DrawnExamples(3_000_000, 40)
    summary = evaluate(package, examples, DetectionSettings()).metrics.summary()
    assert summary["num_images"] == 40
    assert summary["map50"] == pytest.approx(summary["voc_map_all"], abs=0.01)
    assert summary["voc_map_all"] > 0.9
    assert 0.5 < summary["map"] < summary["map75"] < summary["map50"]


def test_classes_that_the_package_lacks_stop_it(labelled, tmp_path) -> None:
    data = labelled.coco(tmp_path, {"image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5]})
    with pytest.raises(SettingError, match="class 'dog' is none of circle, square"):
        evaluate_on_data(settings(data))


def test_data_in_cocos_layout(labelled, tmp_path) -> None:
    """Without objects: nothing can be missed."""
    data = labelled.coco(tmp_path, names=("a.jpg", "b.jpg"))
    summary = evaluate_on_data(settings(data)).metrics.summary()
    assert (summary["num_images"], summary["map"]) == (2, None)


def test_large_jpegs_are_decoded_as_the_package_says(labelled, tmp_path) -> None:
    labelled.voc(tmp_path, split="train", size_px=(2600, 2600), a=labelled.thing("circle", 1, 1, 999, 999))
    Image.new("RGB", (2600, 2600), "navy").save(tmp_path / "JPEGImages/a.jpg")
    package = read_package(str(PACKAGE))
    preprocessing = package.record.preprocessing.model_copy(update={"jpeg_dct_scaling": True})
    scaled = replace(package, record=package.record.model_copy(update={"preprocessing": preprocessing}))
    widths_px = [read_examples([str(tmp_path)], "train", each)[0].image.shape[2] for each in (package, scaled)]
    assert widths_px == [2600, 650]
