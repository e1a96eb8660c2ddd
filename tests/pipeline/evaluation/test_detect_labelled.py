"""Detections of several processes are those of one, image by image; whatever dies."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.demo import PACKAGE
from jobs.demo.examples import DrawnExamples
from jobs.demo.pictures import draw_picture
from model.detector import Detector
from model.example import Truth
from model.metrics import measure
from pipeline.errors import SettingError, SsdBatchError
from pipeline.evaluation.detect_labelled import detect_all
from pipeline.labelled.dataset import read_clean
from pipeline.labelled.examples import LabelledExamples
from pipeline.registry.packages import read_package
from pipeline.settings import DetectionSettings
from pipeline.training.worker import detect_in
from tests.pipeline.accident import NUM_PICTURES, Accident, kill_all_once, kill_this_process

pytestmark = pytest.mark.slow

MODEL = read_package(str(PACKAGE))
TWO = DetectionSettings(num_detectors=2, batch_size=4)


def figures(found: Sequence[Any], truths: Sequence[Truth]) -> dict[str, Any]:
    return measure(found, truths, MODEL.record.class_names).summary()


def test_two_detectors_find_what_a_training_measures() -> None:
    """But for the noise of bfloat16 in batches of other sizes."""
    examples = DrawnExamples(3_000_000, NUM_PICTURES)
    found, truths = detect_all(MODEL, examples, TWO)
    detector = Detector(MODEL, torch.device("cpu"))
    expected, of_expected = zip(*detect_in(examples, range(NUM_PICTURES), detector), strict=True)

    for truth, other in zip(truths, of_expected, strict=True):
        assert all(torch.equal(value, getattr(other, name)) for name, value in vars(truth).items())
    for some, others in zip(found, expected, strict=True):
        assert (some.scores.diff() <= 0).all()
        assert some.labels.dtype == others.labels.dtype
        torch.testing.assert_close(some.scores[:1], others.scores[:1], atol=0.02, rtol=0)
    mine, theirs = figures(found, truths), figures(expected, of_expected)
    assert {name: mine[name] for name in ("map", "map50", "voc_map_all")} == pytest.approx(
        {name: theirs[name] for name in ("map", "map50", "voc_map_all")}, abs=0.01
    )


def test_processes_that_die_lose_no_image(tmp_path: Path) -> None:
    accident = Accident(NUM_PICTURES - 1, partial(kill_all_once, tmp_path / "killed"))
    found, truths = detect_all(MODEL, accident, TWO)
    assert (tmp_path / "killed").exists()
    assert (len(found), len(truths)) == (NUM_PICTURES, NUM_PICTURES)
    for index, truth in enumerate(truths):
        assert torch.equal(truth.boxes_xyxy, DrawnExamples(0, NUM_PICTURES)[index].truth.boxes_xyxy)


def test_an_image_that_kills_its_process_is_named() -> None:
    with pytest.raises(SsdBatchError, match=r"^image 3 can't be measured: the process that held this image alone died"):
        detect_all(MODEL, Accident(3, kill_this_process), TWO)


def test_an_image_that_can_not_be_read_is_named(labelled: Any, tmp_path: Path) -> None:
    names = ("a.jpg", "b.jpg", "c.jpg")
    examples = LabelledExamples(read_clean([str(labelled.coco(tmp_path, names=names))], "train"), ())
    (tmp_path / "train/b.jpg").write_bytes(b"no picture")
    with pytest.raises(SsdBatchError, match=r"^image 1 can't be measured: .*/train/b\.jpg: this is text, of no known"):
        detect_all(MODEL, examples, DetectionSettings())


def test_boxes_of_an_image_at_a_fraction_are_in_pixels_of_the_whole(labelled: Any, tmp_path: Path) -> None:
    """By detectors of a run, and by the one that measures checkpoints."""
    data = read_clean([str(labelled.coco(tmp_path, names=("a.jpg",)))], "train")
    (image,) = (replace(image, size_px=None) for image in data)
    draw_picture(3).image.resize((3200, 2400)).save(image.uri)
    whole, fraction = (LabelledExamples([image], (), min_side_px) for min_side_px in (None, 600))
    assert fraction[0].image.shape == (3, 600, 800)
    detector = Detector(MODEL, torch.device("cpu"))
    (expected, _), (found, _) = (detect_in(examples, [0], detector)[0] for examples in (whole, fraction))
    (of_a_run,), _ = detect_all(MODEL, fraction, TWO)
    is_sure = expected.scores > 0.5
    assert is_sure.any()
    for some in (found, of_a_run):
        torch.testing.assert_close(some.boxes_xyxy[: is_sure.sum()], expected.boxes_xyxy[is_sure], atol=20, rtol=0)


def test_more_detectors_than_cores() -> None:
    with pytest.raises(SettingError, match="num_detectors: 1000 are more than the"):
        detect_all(MODEL, DrawnExamples(0, 1), DetectionSettings(num_detectors=1000))
