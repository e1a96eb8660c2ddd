"""The page on a model's quality and origin, as one HTML file: figures, curves, and the worst mistakes as pictures."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, get_args

import numpy as np
import torch

from jobs.pages.chart import Line, line_chart
from jobs.pages.document import document, picture, table
from model.boxes import pairwise_iou
from model.metrics import Metrics
from model.mistakes import SURE, Mistake, MistakeKind, confusion_matrix, find_mistakes, label_errors
from model.package_files import PackageRecord
from model.postprocess import Detections
from pipeline.evaluation.evaluate import Evaluation
from pipeline.labelled.examples import LabelledExamples
from pipeline.redaction import redacted
from pipeline.training.history import TrainingHistory

NUM_PICTURES = 6
"""The number of pictures per kind of mistake."""
NUM_CURVE_POINTS = 300
MAX_MATRIX = 20
"""The number of classes up to which the page shows all confusions."""
NUM_CONFUSIONS = 20
FOUND, TRUTH = "#e6194b", "#007a33"
"""The colours of detections, and of the image's annotated objects."""
MISTAKE_TEXTS: dict[MistakeKind, tuple[str, str]] = {
    "false_positive": ("False positives", "No object of that class is there, or it was found already."),
    "wrong_class": ("Wrong class", "The box is right, the class is not."),
    "poorly_placed": ("Poorly placed", "The class is right; the overlap (IoU) with the object is 0.5 or less."),
    "missed": ("Missed", "Nothing was found there; the largest objects first."),
}
COCO_FIGURES = {
    "map": "COCO mAP, IoU 0.5 to 0.95", "map50": "COCO mAP, IoU 0.5", "map75": "COCO mAP, IoU 0.75", "map_small": "small objects",
    "map_medium": "medium", "map_large": "large", "voc_map_all": "VOC mAP, IoU 0.5, all points",
    "voc_map_11pt": "VOC mAP, IoU 0.5, 11 points",
}  # fmt: skip


def render(evaluation: Evaluation, data: str, history: TrainingHistory | None = None) -> str:
    """Return the whole page. A few images with mistakes of each kind are read again.

    Args:
        evaluation: the package, and its measured quality.
        data: the name of the data that it was measured on, for people.
        history: the history of the training, if the evaluation ends one.
    """
    package, metrics, examples = evaluation.package, evaluation.metrics, evaluation.examples
    assert isinstance(examples, LabelledExamples)
    record, summary = package.record, metrics.summary()
    return document(
        f"Model {record.name}",
        [
            f'<p class="note">{escape(record.architecture.kind)}, width {record.architecture.width:g}, '
            f"{len(record.class_names)} classes; digest {package.digest}<br>"
            f"measured on {metrics.num_images:,} images: {escape(redacted(data))}</p>",
            _figures(summary),
            *(_training(history) if history else ()),
            _precision_recall(metrics),
            *_mistakes(record, metrics, evaluation.found, examples),
            _origin(record),
        ],
    )


def _figures(summary: dict[str, Any]) -> str:
    return table(("", "value"), [(text, _number(summary[name])) for name, text in COCO_FIGURES.items()])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _training(history: TrainingHistory) -> Iterator[str]:
    """Yield the charts of the losses, the learning rate, and the measurements during training."""
    points = history.stepped
    losses = [
        Line("localization", [(point.step, point.localization) for point in points]),
        Line("classification", [(point.step, point.classification) for point in points]),
    ]
    yield "<h2>Training</h2>"
    limits = _loss_limits([loss for line in losses for _, loss in line.points])
    yield "<h3>Loss</h3>" + line_chart("Loss", losses, "step", "loss", limits, is_log=True)
    rates = Line("", [(point.step, point.learning_rate) for point in points])
    yield "<h3>Learning rate</h3>" + line_chart("Learning rate", [rates], "step", "learning rate")
    if history.measured:
        lines = [
            Line("mAP, IoU 0.5", [(point.step, point.map50) for point in history.measured]),
            Line("mAP, IoU 0.5 to 0.95", [(point.step, point.map) for point in history.measured]),
        ]
        title = "On the held-out images"
        yield f"<h3>{title}</h3>" + line_chart(title, lines, "step", "mAP", (0, 1))


def _loss_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a logarithmic axis that begins at the least value, but spans one to three powers of ten."""
    above_0 = [value for value in values if 0 < value < math.inf] or [1.0]
    high = max(above_0)
    return max(min(above_0), high / 1000) if min(above_0) < high / 10 else high / 10, high * 1.1


def _precision_recall(metrics: Metrics) -> str:
    """Return the curves, and the best score of each class to keep detections from."""
    lines = []
    rows = []
    for name, voc in metrics.voc.items():
        curve, score = voc.curve, voc.curve.best_score
        lines.append(Line(f"{name} {voc.all_points:.3f}", _thinned(curve.recall, curve.precision)))
        at = int((curve.scores >= score).sum()) - 1
        there = (_number(float(curve.precision[at])), _number(float(curve.recall[at]))) if at >= 0 else ("–", "–")
        coco = _number(metrics.coco_per_class.get(name))
        rows.append((escape(name), f"{voc.num_objects:,}", _number(voc.all_points), coco, _number(score), *there))
    if not lines:
        return "<p>These images have no objects.</p>"
    chart = line_chart("Precision over recall", lines, "recall", "precision", (0, 1.02))
    header = ("class", "objects", "AP50", "AP50–95", "best score", "precision", "recall")
    explained = "AP50 is Pascal VOC's over all points, AP50–95 COCO's. From the best score on, F1 is highest: precision and recall there."
    return (
        f"<h2>Classes</h2>{table(header, rows)}<p class='note'>{explained}</p>"
        f"<h3>Precision over recall at IoU 0.5, and average precision</h3>{chart}"
    )


def _thinned(recall: torch.Tensor, precision: torch.Tensor) -> list[tuple[float, float]]:
    """Return as many points of a curve as can be seen, the last one among them."""
    stride = max(1, len(recall) // NUM_CURVE_POINTS)
    kept = sorted({*range(0, len(recall), stride), len(recall) - 1} - {-1})
    return [(float(recall[index]), float(precision[index])) for index in kept]


def _mistakes(
    record: PackageRecord, metrics: Metrics, found: Sequence[Detections], examples: LabelledExamples
) -> Iterator[str]:
    """Yield a sheet of pictures for each kind of mistake."""
    best = [metrics.curves[name].best_score if name in metrics.curves else 0.5 for name in record.class_names]
    truths = [examples.truth(index) for index in range(len(examples))]
    min_scores = torch.tensor([1.0, *best])
    mistakes = find_mistakes(found, truths, min_scores)
    yield _confusions(confusion_matrix(found, truths, min_scores), record.class_names)
    sure = label_errors(find_mistakes(found, truths, torch.zeros_like(min_scores)))
    yield _label_errors(sure, found, examples, record.class_names)
    yield (
        "<h2>Worst mistakes</h2><p class='note'>Detections from each class's best score on; difficult objects and crowds "
        f'do not count. <b style="color:{FOUND}">Found</b>, <b style="color:{TRUTH}">annotated</b>; a picture shows the '
        "image's worst mistake of its kind, thin lines all that is annotated.</p>"
    )
    for kind in get_args(MistakeKind):
        of_kind = [mistake for mistake in mistakes if mistake.kind == kind]
        sheet = "".join(_pictures(of_kind, found, examples, record.class_names))
        title, text = MISTAKE_TEXTS[kind]
        yield f'<h3>{title}: {len(of_kind):,}</h3><p class="note">{text}</p><div class="sheet">{sheet}</div>'


def _confusions(counts: torch.Tensor, class_names: Sequence[str]) -> str:
    """Return what objects are taken for: as a matrix, or of many classes the most frequent confusions."""
    title = "<h2>What objects are taken for</h2>"
    names = [escape(name) for name in class_names]
    explained = "Detections from each class's best score on, at an overlap (IoU) above 0.5."
    if len(names) > MAX_MATRIX:
        wrong = counts.clone().fill_diagonal_(0)
        order = wrong.flatten().argsort(descending=True, stable=True)[:NUM_CONFUSIONS].tolist()
        places = [divmod(place, len(counts)) for place in order]
        labels = ["nothing", *names]
        confused = [
            (labels[row], labels[column], f"{counts[row, column]:,}") for row, column in places if wrong[row, column]
        ]
        return f"{title}<p class='note'>{explained}</p>{table(('annotated', 'found', 'times'), confused)}"
    rows = [
        (name, *(f"{count:,}" for count in [*counts[label, 1:].tolist(), int(counts[label, 0])]))
        for label, name in [*enumerate(names, start=1), (0, "nothing")]
    ]
    return (
        f"{title}<p class='note'>A row for each annotated class, a column for what was found. {explained}</p>"
        + table(("", *names, "nothing"), rows)
    )


def _label_errors(
    suspects: Sequence[Mistake], found: Sequence[Detections], examples: LabelledExamples, class_names: Sequence[str]
) -> str:
    """Return pictures of the labels that are worth a second look."""
    if not suspects:
        return ""
    sheet = "".join(_pictures(suspects, found, examples, class_names))
    return (
        f"<h2>Labels worth a second look: {len(suspects):,}</h2><p class='note'>The model is sure (score {SURE:g} or more) of an object where "
        "none is annotated, or one of another class. Where it is right, mend the label. <code>ssd-batch evaluate --label-errors FILE</code> "
        f'lists them all.</p><div class="sheet">{sheet}</div>'
    )


def _pictures(
    mistakes: Sequence[Mistake], found: Sequence[Detections], examples: LabelledExamples, class_names: Sequence[str]
) -> Iterator[str]:
    """Yield a figure of the first mistake in each image, for at most `NUM_PICTURES` images that can be read."""
    num_shown, shown = 0, set[int]()
    for mistake in mistakes:
        if mistake.image in shown or num_shown == NUM_PICTURES:
            continue
        shown.add(mistake.image)
        if figure := _picture(mistake, found[mistake.image], examples, class_names):
            num_shown += 1
            yield figure


def _picture(mistake: Mistake, found: Detections, examples: LabelledExamples, class_names: Sequence[str]) -> str | None:
    """Return a figure of all objects in thin lines, then the mistake's object and its detection."""
    truth, uri = examples.truth(mistake.image), examples.uri(mistake.image)
    boxes, texts = [*truth.boxes_xyxy.tolist()], [""] * len(truth.labels)
    colours = [TRUTH] * len(texts)
    if mistake.object is not None:
        boxes.append(boxes[mistake.object])
        texts.append(class_names[int(truth.labels[mistake.object]) - 1])
        colours.append(TRUTH)
    if mistake.detection is not None:
        boxes.append(found.boxes_xyxy[mistake.detection].tolist())
        texts.append(f"{class_names[int(found.labels[mistake.detection]) - 1]} {mistake.score:.2f}")
        colours.append(FOUND)
    if mistake.kind == "poorly_placed":
        overlap = float(pairwise_iou(*torch.tensor(boxes[-2:])[:, None]))
        what = f"{texts[-1]}, IoU {overlap:.2f}"
    else:
        what = " found as ".join(filter(None, texts))
    caption = f"{what} in {redacted(uri)}"
    return picture(uri, np.array(boxes).reshape(-1, 4), texts, caption, colours)


def _origin(record: PackageRecord) -> str:
    """Return the origin of the model: its provenance, as it is stored in the package."""
    rows = [(escape(name), escape(value)) for name, value in _flat(record.provenance)]
    if not rows:
        return ""
    return f"<h2>How it was made</h2>{table(('', ''), rows, are_numbers=False)}"


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the names and texts of nested values."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif value not in (None, "", [], ()):
            yield f"{above}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
