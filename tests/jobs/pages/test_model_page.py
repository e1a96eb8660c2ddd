"""The page of given detections; a training's own is in test_train.py."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.pages import model_page
from jobs.pages.document import write_page
from jobs.pages.model_page import _loss_limits, render
from model.config import Architecture
from model.metrics import measure
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.postprocess import Detections
from model.ssd import SSD
from pipeline.errors import SettingError
from pipeline.evaluation.evaluate import Evaluation
from pipeline.labelled.dataset import read_clean
from pipeline.labelled.examples import LabelledExamples
from pipeline.training.events import Evaluated, StepDone
from pipeline.training.history import TrainingHistory

NAMES = ("<b>ring", "square")


@pytest.fixture
def examples(labelled: Any, tmp_path: Path) -> LabelledExamples:
    """Three objects, in two images."""
    things = {"a": labelled.thing("&lt;b&gt;ring", 3, 3, 20, 20), "b": labelled.thing("square", 1, 1, 9, 9) * 2}
    return LabelledExamples(read_clean([str(labelled.voc(tmp_path / "data", **things))], "train"), NAMES)


def found(*boxes: tuple[list[float], int, float]) -> Detections:
    return Detections(
        torch.tensor([box for box, _, _ in boxes]).reshape(-1, 4),
        torch.tensor([score for _, _, score in boxes]),
        torch.tensor([label for _, label, _ in boxes], dtype=torch.int64),
    )


def page(examples: LabelledExamples, each: list[Detections], history: TrainingHistory | None = None) -> str:
    architecture = Architecture(width=0.05)
    origin = {"settings": {"seed": 7, "init": None}, "data": ["a", "b"]}
    record = PackageRecord(name="shapes", architecture=architecture, class_names=NAMES, provenance=origin)
    package = ModelPackage(record, SSD(architecture, 3).state_dict())
    truths = [examples.truth(index) for index in range(len(examples))]
    evaluation = Evaluation(package, examples, measure(each, truths, NAMES), each)
    return render(evaluation, "https://me:secret@host/data?key=secret", history)


def test_it_stands_alone_and_shows_mistakes(examples: LabelledExamples) -> None:
    """The ring is taken for a square with more confidence than the squares are found with: one right, one missed."""
    ring = examples.truth(0).boxes_xyxy[0].tolist()
    square = examples.truth(1).boxes_xyxy[0].tolist()
    html = page(examples, [found((ring, 2, 0.75)), found((square, 2, 0.5))])
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "<script" not in html
    assert "<b>ring" not in html
    assert "secret" not in html
    counts = re.findall(r"<h3>([^<:]+): (\d+)</h3>", html)
    assert counts == [("False positives", "0"), ("Wrong class", "1"), ("Poorly placed", "0"), ("Missed", "1")]
    assert "&lt;b&gt;ring found as square 0.75 in " in html
    assert html.count("data:image/jpeg;base64,") == 2
    matrix = re.search(r"What objects are taken for.*?<table>(.*?)</table>", html, re.DOTALL)
    assert matrix
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in matrix[1].split("</tr>")[1:-1]]
    assert rows == [["&lt;b&gt;ring", "0", "1", "0"], ["square", "0", "1", "1"], ["nothing", "0", "0", "0"]]
    assert "Labels worth a second look" not in html  # the model isn't sure
    assert "<td>settings.seed</td><td>7</td>" in html
    assert 'aria-label="Loss"' not in html


def test_labels_of_which_the_model_is_sure_otherwise(examples: LabelledExamples) -> None:
    ring = examples.truth(0).boxes_xyxy[0].tolist()
    html = page(examples, [found((ring, 2, 0.95)), found()])
    assert "<h2>Labels worth a second look: 1</h2>" in html
    assert "&lt;b&gt;ring found as square 0.95 in " in html


def test_of_many_classes_the_page_shows_the_most_frequent_confusions(
    examples: LabelledExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_page, "MAX_MATRIX", 1)
    ring, square = (examples.truth(index).boxes_xyxy[0].tolist() for index in (0, 1))
    html = page(examples, [found((ring, 2, 0.75)), found((square, 2, 0.75))])
    assert '<td>&lt;b&gt;ring</td><td class="number">square</td><td class="number">1</td>' in html


def test_a_poorly_placed_box_tells_its_overlap(examples: LabelledExamples) -> None:
    left, top, right, bottom = examples.truth(1).boxes_xyxy[0].tolist()
    half = (right - left) / 2
    html = page(examples, [found(), found(([left + half, top, right + half, bottom], 2, 1.0))])
    assert "<h3>Poorly placed: 1</h3>" in html
    assert "square 1.00, IoU 0.33 in " in html


def test_curves_of_a_training(examples: LabelledExamples) -> None:
    history = TrainingHistory(
        1, [], [StepDone(1, 2.0, 9.0, 0.1), StepDone(2, 1.0, 4.0, 0.05)], [Evaluated(2, 0.25, 0.5)]
    )
    html = page(examples, [found(), found()], history)
    labels = re.findall(r'aria-label="([^"]+)"', html)
    assert labels == ["Loss", "Learning rate", "On the held-out images", "Precision over recall"]


@pytest.mark.parametrize(
    ("losses", "limits"),
    [
        ([2.0, 2.0], (0.2, 2.2)),
        ([40.0, 0.0], (4, 44)),
        ([0.0, 0.0], (0.1, 1.1)),
        ([5.0, 0.02], (0.02, 5.5)),
        ([5.0, 1e-9, float("nan"), float("inf")], (0.005, 5.5)),
    ],
)
def test_losses_of_any_size_have_a_log_axis(
    examples: LabelledExamples, losses: list[float], limits: tuple[float, float]
) -> None:
    assert _loss_limits(losses) == pytest.approx(limits)
    stepped = [StepDone(step, loss, loss, 0.1) for step, loss in enumerate(losses, start=1)]
    assert 'aria-label="Loss"' in page(examples, [found(), found()], TrainingHistory(1, [], stepped, []))


def test_images_that_can_not_be_read_are_left_out(examples: LabelledExamples) -> None:
    for index in range(2):
        Path(examples.uri(index)).unlink()
    html = page(examples, [found(), found()])
    assert "<h3>Missed: 3</h3>" in html
    assert "<img" not in html


def test_a_place_that_can_not_be_written() -> None:
    with pytest.raises(SettingError, match=r"page '/dev/null/page\.html' can't be written"):
        write_page("/dev/null/page.html", "", "page")
