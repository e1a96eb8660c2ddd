"""The commands for training: `train` and `evaluate`."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.commands.options import command, json_option
from jobs.demo import PACKAGE, WIDTH
from jobs.specs.load import load_settings, spec_options
from pipeline.errors import SettingError
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.redaction import redacted_json
from pipeline.training.settings import RESUMABLE, TrainSettings

if TYPE_CHECKING:
    from pipeline.evaluation.evaluate import Evaluation

logger = logging.getLogger(__name__)

OF_A_SEED = {"seed", "num_seeds", "name", "output", "storage"}
"""The settings in which the trainings with several seeds differ."""
PAGE_FILE = "training.html"
"""The page of a training, in the folder of its package."""


@command(
    "train --data DATA --output models/mine --name mine",
    "train --spec jobs/bccd.yaml --data BCCD --output models/blood \\\n      --name blood",
)
@spec_options(TrainSettings)
@json_option
def train(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Train an SSD on labelled images, and write its package. By default it is narrow, and starts from the demo's model."""
    settings = with_start(load_settings(TrainSettings, spec, flags))
    metrics = train_and_show(settings) if settings.num_seeds == 1 else train_seeds(settings)
    click.echo(json.dumps(metrics) if as_json else json.dumps(metrics, indent=2))


def with_start(settings: TrainSettings) -> TrainSettings:
    """Return the settings with the demo's model as the start, if none is given and its width is the wanted one."""
    if settings.init:
        return settings
    if settings.width != WIDTH:
        logger.info("init: nothing, as the demo's model has another width; --init names a package to start from")
        return settings
    logger.info("init: the demo's model, as none is given; --init random starts from nothing")
    return settings.model_copy(update={"init": str(PACKAGE)})


def train_and_show(settings: TrainSettings) -> dict[str, Any]:
    """Train, write a page into the package's folder, and return the package's metrics."""
    from jobs.pages.document import write_page
    from jobs.pages.model_page import render
    from pipeline.training.run import train_on_data

    training = train_on_data(settings)
    page = render(training.evaluation, training.measured_on, training.history)
    write_page(f"{settings.output.rstrip('/')}/{PAGE_FILE}", page, "output")
    logger.info("model written to %s, and what it learned and mistakes to %s in it", settings.output, PAGE_FILE)
    logger.info("next: ssd-batch infer --input PHOTOS --table TABLE --model %s --min-score best", settings.output)
    return training.evaluation.package.record.metrics


def train_seeds(settings: TrainSettings) -> dict[str, Any]:
    """Train once per seed, and return the metrics of each with their mean and spread. Seeds that are done are not trained again."""
    from model.package_files import RECORD_FILE
    from pipeline.registry.packages import read_files
    from pipeline.storage import store

    folder, each = settings.output.rstrip("/"), {}
    for seed in range(settings.seed, settings.seed + settings.num_seeds):
        name = f"seed-{seed}"
        output, runs = f"{folder}/{name}", settings.storage or f"{folder}/_runs"
        changes = {"seed": seed, "name": f"{settings.name}-{name}", "output": output, "storage": runs}
        if settings.tensorboard:
            changes["tensorboard"] = f"{settings.tensorboard.rstrip('/')}/{name}"
        if not settings.restart and store.exists(f"{output}/{RECORD_FILE}"):
            record = read_files(output).record
            _check_same_recipe(settings, record.provenance.get("settings", {}), output)
            each[name] = record.metrics
        else:
            each[name] = train_and_show(settings.model_copy(update=changes))
    return each | spread_of(list(each.values()))


def _check_same_recipe(settings: TrainSettings, before: dict[str, Any], output: str) -> None:
    """Check that a seed that is done was trained as the others will be. What a training takes from its data is not compared."""
    ours = redacted_json(settings.model_dump(mode="json"))
    taken = {
        "zoom_out_max",
        "crop_min",
        "class_weights",
        "match_iou",
        "learning_rate",
        "num_steps",
    } - settings.model_fields_set
    compared = ours.keys() - RESUMABLE - OF_A_SEED - taken
    for name in sorted(compared):
        if ours[name] != before.get(name):
            raise SettingError(
                f"{name}: {ours[name]!r}, not {before.get(name)!r} as {output!r} was trained with; give another output"
            )


def spread_of(each: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of each figure, and the differences between the largest and the smallest, where all have one."""
    figures = {
        name: values
        for name in ("map", "map50", "voc_map_all")
        if None not in (values := [metrics[name] for metrics in each])
    }
    return {
        "mean": {name: round(sum(values) / len(values), 4) for name, values in figures.items()},
        "spread": {name: round(max(values) - min(values), 4) for name, values in figures.items()},
    }


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
    from pipeline.evaluation.label_errors import render_label_errors

    page, listed = page_at(settings.page, "page"), page_at(settings.label_errors, "label_errors")
    evaluation = evaluate_on_data(settings)
    listed.write(lambda: render_label_errors(evaluation))
    page.write(lambda: render(evaluation, f"{' '.join(settings.data)} {settings.split}"))
    return evaluation
