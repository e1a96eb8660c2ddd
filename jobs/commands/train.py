"""The commands for training: `train` and `evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.commands.options import command, json_option
from jobs.specs.load import load_settings, spec_options
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.training.settings import TrainSettings

if TYPE_CHECKING:
    from pipeline.evaluation.evaluate import Evaluation

PAGE_FILE = "training.html"
"""The page of a training, in the folder of its package."""


@command(
    "train --data DATA --output models/mine --name mine",
    "train --spec jobs/bccd.yaml --data BCCD --output models/blood \\\n      --name blood",
)
@spec_options(TrainSettings)
@json_option
def train(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Train an SSD on labelled images, and write its package. By default it is narrow, and starts from scratch."""
    metrics = train_and_show(load_settings(TrainSettings, spec, flags))
    click.echo(json.dumps(metrics) if as_json else json.dumps(metrics, indent=2))


def train_and_show(settings: TrainSettings) -> dict[str, Any]:
    """Train, write a page into the package's folder, and return the package's metrics."""
    from jobs.pages.document import write_page
    from jobs.pages.model_page import render
    from pipeline.training.run import train_on_data

    training = train_on_data(settings)
    page = render(training.evaluation, training.measured_on, training.history)
    write_page(f"{settings.output.rstrip('/')}/{PAGE_FILE}", page, "output")
    return training.evaluation.package.record.metrics


@command(
    "evaluate --model models/mine --data DATA --split test",
    "evaluate --model models/mine --data DATA --page page.html --json",
)
@spec_options(EvaluateSettings)
@json_option
def evaluate(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Measure a model package on labelled images: mAP as COCO and as Pascal VOC define it."""
    metrics = evaluate_and_show(load_settings(EvaluateSettings, spec, flags)).metrics.summary()
    click.echo(json.dumps(metrics) if as_json else json.dumps(metrics, indent=2))


def evaluate_and_show(settings: EvaluateSettings) -> "Evaluation":
    """Measure, and write a page where one is named."""
    from jobs.pages.document import page_at
    from jobs.pages.model_page import render
    from pipeline.evaluation.evaluate import evaluate_on_data

    page = page_at(settings.page, "page")
    evaluation = evaluate_on_data(settings)
    page.write(lambda: render(evaluation, f"{' '.join(settings.data)} {settings.split}"))
    return evaluation
