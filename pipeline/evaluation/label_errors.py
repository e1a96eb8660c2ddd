"""The list of labels that are worth a second look, because a model is sure of something else."""

import csv
import io

import torch

from model.mistakes import find_mistakes, label_errors
from pipeline.evaluation.evaluate import Evaluation
from pipeline.labelled.examples import LabelledExamples
from pipeline.redaction import redacted

COLUMNS = ("uri", "score", "found", "annotated", "xmin", "ymin", "xmax", "ymax")
"""The columns of the list: the image, the model's class and box in pixels, and the class that is annotated there, if any."""


def render_label_errors(evaluation: Evaluation) -> str:
    """Return the list as CSV, the most confident detection first."""
    examples, names = evaluation.examples, evaluation.package.record.class_names
    assert isinstance(examples, LabelledExamples)
    truths = [examples.truth(index) for index in range(len(examples))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for mistake in label_errors(find_mistakes(evaluation.found, truths, torch.zeros(len(names) + 1))):
        found, truth = evaluation.found[mistake.image], truths[mistake.image]
        assert mistake.detection is not None
        annotated = "" if mistake.object is None else names[int(truth.labels[mistake.object]) - 1]
        box = [round(side, 1) for side in found.boxes_xyxy[mistake.detection].tolist()]
        uri, name = redacted(examples.uri(mistake.image)), names[int(found.labels[mistake.detection]) - 1]
        writer.writerow((uri, f"{mistake.score:.4f}", name, annotated, *box))
    return text.getvalue()
