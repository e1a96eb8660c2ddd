"""The commands for labelled images: `data check`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import cloup

from jobs.commands.options import examples, json_option
from jobs.specs.load import load_settings, spec_options
from model.config import Architecture
from pipeline.labelled.settings import DataCheckSettings


@cloup.group(epilog=examples("data check --data DATA", "data check --data DATA --split train --output check.html"))
def data() -> None:
    """Check labelled images."""


@data.command(
    "check", epilog=examples("data check --data DATA", "data check --data DATA --split train --output check.html")
)
@spec_options(DataCheckSettings)
@json_option
def check_data(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Report what is wrong with labelled images before a training; exit with 1 if something would spoil it."""
    from jobs.text.data import describe_report

    report = check(load_settings(DataCheckSettings, spec, flags))
    click.echo(json.dumps(report) if as_json else describe_report(report))
    if not report["is_sound"]:
        sys.exit(1)


def check(settings: DataCheckSettings) -> dict[str, Any]:
    """Check the data, write the page where one is named, and return the report as JSON has it.

    Raises:
        SettingError: the data, the model or the class names can't be read, or the page can't be written.
    """
    from jobs.pages.data_page import render
    from jobs.pages.document import page_at
    from jobs.text.data import report_as_json
    from pipeline.labelled.check import check_data

    known, architecture = expected(settings)
    page = page_at(settings.output, "output")
    report = check_data(settings.data, settings.split, known, architecture)
    page.write(lambda: render(report, settings.data, architecture))
    return report_as_json(report, settings.output, architecture)


def expected(settings: DataCheckSettings) -> tuple[Sequence[str] | None, Architecture]:
    """Return the known classes, and the network that is to learn."""
    from pipeline.inputs.class_names import read_class_names
    from pipeline.registry.packages import read_package

    if settings.model:
        record = read_package(settings.model).record
        return record.class_names, record.architecture
    names = read_class_names(settings.class_names) if settings.class_names else None
    return names, Architecture(kind=settings.architecture)
