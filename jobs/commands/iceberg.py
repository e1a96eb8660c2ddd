"""The commands for readers of Iceberg: `iceberg register`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import cloup

from jobs.commands.options import examples, json_option
from jobs.specs.load import check_settings, given, setting_options
from pipeline.table.settings import IcebergSettings

if TYPE_CHECKING:
    from pipeline.table.iceberg import Registered

SHOWN = (
    "iceberg register --table tables/photos --name detections.photos",
    "iceberg register --table s3://bucket/tables/photos \\\n      --name detections.photos --catalog prod",
)


@cloup.group(epilog=examples(*SHOWN))
def iceberg() -> None:
    """Show a table to readers of Iceberg."""


@iceberg.command("register", epilog=examples(*SHOWN))
@setting_options(IcebergSettings)
@json_option
def register(as_json: bool, **flags: Any) -> None:
    """Register a table's files with an Iceberg catalog, without a copy. Call it again to bring the catalog up to date."""
    from pipeline.table.iceberg import register as run

    done = run(check_settings(IcebergSettings, given(flags)))
    click.echo(json.dumps(asdict(done)) if as_json else describe_registered(done))


def describe_registered(done: "Registered") -> str:
    """Say what the catalog has now, for people."""
    return (
        f"{done.name}: {done.rows:,} rows in {done.files:,} files, as version {done.version} of the table "
        f"({done.added_files:,} files added, {done.removed_files:,} removed)\n"
        f"{done.metadata}"
    )
