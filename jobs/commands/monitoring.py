"""The command for Prometheus: `exporter`."""

from pathlib import Path

import click
import cloup

from jobs.commands.options import command
from jobs.specs.load import SPEC_FILE, load_settings, read_spec
from jobs.specs.settings import AlertSettings
from pipeline.errors import SettingError
from pipeline.inference.settings import InferSettings


@command("exporter --table tables/photos", "exporter --spec jobs/nightly.yaml --host 0.0.0.0 --port 9464")
@cloup.option(
    "--table", "tables", multiple=True, metavar="PATH_OR_URL", help="Table of results. May be given several times."
)
@cloup.option(
    "--spec",
    "specs",
    multiple=True,
    type=SPEC_FILE,
    help="Spec of a job, for its table and its job.alerts. May be given several times.",
)
@cloup.option(
    "--port", type=click.IntRange(0, 65_535), default=9464, show_default=True, help="Port; 0 takes a free one."
)
@cloup.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen at; there is no authentication.",
)
def exporter(tables: tuple[str, ...], specs: tuple[Path, ...], port: int, host: str) -> None:
    """Publish the results of finished runs to Prometheus, until it is stopped."""
    from jobs.exporter import serve

    watched = dict.fromkeys(tables, AlertSettings()) | {
        load_settings(InferSettings, spec, {}).table: read_spec(spec).job.alerts for spec in specs
    }
    if not watched:
        raise SettingError("table: missing; give --table, or --spec of a job that has one")
    serve(watched, host, port)
