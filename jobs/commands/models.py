"""Commands that make and manage model packages."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import cloup

from jobs.commands.options import examples, json_option
from jobs.specs.load import load_settings, spec_options
from pipeline.evaluation.settings import QuantizeSettings
from pipeline.registry.settings import ExportSettings, ImportSettings, PublishSettings, PushSettings


@cloup.group(
    epilog=examples("model list models/blood", "model publish --model models/mine --to models/blood"),
)
def model() -> None:
    """Make and manage model packages."""


@model.command(
    "import",
    epilog=examples(
        "model import --weights SSD300_VGG16_Weights.COCO_V1 \\\n      --output models/coco --name coco",
        "model import --weights weights.pth --class-names names.txt \\\n      --output models/mine --name mine",
    ),
)
@spec_options(ImportSettings)
@json_option
def import_model(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Make a model package of weights of torchvision or ssd.pytorch: an SSD300, or a VGG16 for `train --init`."""
    from pipeline.registry.import_weights import import_model as run

    made = run(load_settings(ImportSettings, spec, flags))
    what = f"{made['num_classes']} classes" if made["num_classes"] else "a trunk, for train --init"
    text = f"{made['source']}, {what}, written to {made['output']}\nmodel {made['model_digest']}"
    click.echo(json.dumps(made) if as_json else text)


@model.command(
    "quantize",
    epilog=examples(
        "model quantize --model models/mine --data BCCD --output int8",
        "model quantize --model models/mine --data BCCD --output int8 \\\n      --max-map-loss 0.005 --json",
    ),
)
@spec_options(QuantizeSettings)
@json_option
def quantize_model(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Make a package that detects in int8 on CPUs, and measure what that loses. Needs the extra openvino."""
    from pipeline.evaluation.quantize import quantize_on_data

    done = quantize_on_data(load_settings(QuantizeSettings, spec, flags))
    text = (
        f"mAP {done.map:.4f} in int8, {done.float_map:.4f} before, written to {done.output}\nmodel {done.model_digest}"
    )
    click.echo(json.dumps(asdict(done)) if as_json else text)


@model.command(
    "export",
    epilog=examples(
        "model export --model models/mine --input photos \\\n      --output mine.onnx",
        "model export --model models/mine --input photos \\\n      --format openvino --part network --output mine.xml",
    ),
)
@spec_options(ExportSettings)
@json_option
def export_model(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Write a model for other libraries: ONNX, OpenVINO or torch.export. The file is checked on images first."""
    from pipeline.registry.export_model import export_model as run

    done = run(load_settings(ExportSettings, spec, flags))
    text = (
        f"written to {done.output}: {done.num_detections:,} detections in {done.num_images:,} images are the package's"
    )
    click.echo(json.dumps(asdict(done)) if as_json else text)


@model.command(
    "publish",
    epilog=examples(
        "model publish --model models/mine --to s3://bucket/models/blood",
        "model publish --model models/mine --to models/blood --alias next",
    ),
)
@spec_options(PublishSettings)
@json_option
def publish_model(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Publish a model package in a folder named by its digest, and move an alias to it."""
    from jobs.text.models import describe_published
    from pipeline.registry.publish import publish

    settings = load_settings(PublishSettings, spec, flags)
    done = publish(settings.model, settings.to, settings.alias)
    click.echo(json.dumps(asdict(done)) if as_json else describe_published(done))


@model.command(
    "push",
    epilog=examples(
        "model push --model models/mine --to hf://me/blood",
        "model push --model models/blood/latest --to hf://me/blood \\\n      --private",
    ),
)
@spec_options(PushSettings)
@json_option
def push_model(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Push a model package with a card to the Hugging Face Hub. Needs the extra hub."""
    from pipeline.registry.hub import push

    settings = load_settings(PushSettings, spec, flags)
    done = push(settings.model, settings.to, settings.private)
    text = f"{done.to}: {done.commit_url}\nmodel {done.model_digest}"
    click.echo(json.dumps(asdict(done)) if as_json else text)


@model.command(
    "rollback",
    epilog=examples("model rollback s3://bucket/models/blood/latest", "model rollback models/blood/next --json"),
)
@cloup.argument("alias")
@json_option
def roll_back_model(alias: str, as_json: bool) -> None:
    """Move an alias, such as s3://bucket/models/blood/latest, back to the model that it named before."""
    from pipeline.registry.publish import roll_back

    done = roll_back(alias)
    text = f"{done.alias} moved back from {done.from_digest} to {done.to_digest}"
    click.echo(json.dumps(asdict(done)) if as_json else text)


@model.command("list", epilog=examples("model list models/blood", "model list s3://bucket/models/blood --json"))
@cloup.argument("url")
@json_option
def list_models(url: str, as_json: bool) -> None:
    """List the models published at a URL, and the moves of their aliases."""
    from jobs.text.models import describe_models, models_as_json
    from pipeline.registry.publish import list_published

    models, moves = list_published(url)
    click.echo(json.dumps(models_as_json(models, moves)) if as_json else describe_models(models, moves))
