"""The command for Prometheus: `exporter`."""

from pathlib import Path

import click

from jobs.specs.load import SPEC_FILE, load_settings, read_spec
from jobs.specs.settings import AlertSettings
from pipeline.errors import SettingError
from pipeline.inference.settings import InferSettings


@click.command()
@click.option("--table", "tables", multiple=True, help="Table of results; may be given several times.")
@click.option(
    "--spec", "specs", multiple=True, type=SPEC_FILE, help="Spec of a job: its table, and its job.alerts; also several."
)
@click.option("--port", type=click.IntRange(0, 65_535), default=9464, show_default=True, help="0 = a free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen at; there is no authentication."
)
def exporter(tables: tuple[str, ...], specs: tuple[Path, ...], port: int, host: str) -> None:
    """Serve for Prometheus what the records of runs say, until it is stopped: also when no run goes on."""
    from jobs.exporter import serve

    watched = dict.fromkeys(tables, AlertSettings()) | {
        load_settings(InferSettings, spec, {}).table: read_spec(spec).job.alerts for spec in specs
    }
    if not watched:
        raise SettingError("table: missing; give --table, or --spec of a job that has one")
    serve(watched, host, port)
