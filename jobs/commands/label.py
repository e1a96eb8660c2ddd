"""The commands for labelling: `label next`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import cloup

from jobs.commands.options import examples, json_option
from jobs.specs.load import check_settings, given, setting_options
from pipeline.active_learning.settings import LabelNextSettings

if TYPE_CHECKING:
    from pipeline.active_learning.label_next import LabelTasks

SHOWN = (
    "label next --table tables/photos --output to-label",
    "label next --table tables/photos --output round-2 --format cvat \\\n      --budget 100 --earlier to-label",
)


@cloup.group(epilog=examples(*SHOWN))
def label() -> None:
    """Choose the images that are worth labelling."""


@label.command("next", epilog=examples(*SHOWN))
@setting_options(LabelNextSettings)
@json_option
def label_next(as_json: bool, **flags: Any) -> None:
    """Choose the images whose labels would teach a model the most, and write them as tasks with boxes to correct."""
    from pipeline.active_learning.label_next import label_next as run

    done = run(check_settings(LabelNextSettings, given(flags)))
    click.echo(json.dumps(asdict(done)) if as_json else describe_tasks(done))


def describe_tasks(done: "LabelTasks") -> str:
    """Say what was chosen, for people."""
    lacking = f"; {done.not_copied:,} images could not be copied, and images.csv says why" if done.not_copied else ""
    return (
        f"{done.images:,} of {done.candidates:,} images chosen, with {done.boxes:,} boxes to correct: {done.output}{lacking}\n"
        "chosen.csv says why, the best first"
    )
