"""The command line. Exit codes: 0 done; 1 failed; 2 wrong usage or setting, nothing started; others see `pipeline.errors`."""

import json
import logging
import os
import sys
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from jobs.job_commands import logs, spec, status, stop, submit
from jobs.job_settings import AlertSettings
from jobs.model_commands import model
from jobs.options import json_option, table_option
from jobs.settings import DataCheckSettings, EvaluateSettings, TrainSettings
from jobs.spec import SPEC_FILE, load_settings, read_spec, spec_options
from pipeline import log_lines
from pipeline.errors import SettingError, SsdBatchError, TargetMissedError
from pipeline.log_lines import LogFormat
from pipeline.settings import CanarySettings, InferSettings, MaintainSettings
from pipeline.stop import stoppable

if TYPE_CHECKING:
    from pipeline.maintain import Maintained
    from pipeline.summary import Summary

logger = logging.getLogger("jobs")


class StoppableGroup(click.Group):
    """Commands that a signal ends early, with an exit code of its own."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command as click does, which by itself knows of Ctrl-C alone, and exits with 1."""
        with stoppable():
            return super().invoke(ctx)


@click.group(cls=StoppableGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="ssd-batch")
@click.option(
    "--log-format",
    type=click.Choice(get_args(LogFormat)),
    default="text",
    show_default=True,
    envvar="SSD_BATCH_LOG_FORMAT",
    show_envvar=True,
    help="Of standard error: lines for people, or a JSON object each.",
)
def cli(log_format: LogFormat) -> None:
    """Run an SSD detector over images in object storage, into Parquet tables you can query."""
    log_lines.use(log_format)


@cli.command()
@spec_options(InferSettings)
@json_option
def infer(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Detect objects in all images that the table does not hold yet."""
    from pipeline.stages.server import start_early

    settings = load_settings(InferSettings, spec, flags)
    if not settings.dry_run:
        start_early(settings)
    from pipeline.backfill import backfill
    from pipeline.run import infer as run

    def show(summary: Any) -> None:
        click.echo(json.dumps(asdict(summary)) if as_json else describe(summary))

    try:
        show(backfill(settings) if settings.dates else run(settings))
    except TargetMissedError as error:
        if error.summary:
            show(error.summary)
        raise


def describe(summary: "Summary") -> str:
    """The summary for people; a backfill's has a line a day."""
    from pipeline.summary import DryRunSummary

    if isinstance(summary, DryRunSummary):
        from jobs.run_report import describe_dry_run

        return describe_dry_run(summary)
    days = "".join(
        f"{day}: {of_day.planned:,} planned, {of_day.ok:,} ok, {of_day.failed:,} failed, {of_day.already_done:,} done before\n"
        for day, of_day in getattr(summary, "days", {}).items()
    )
    return days + (
        f"run {summary.run_id}: {summary.ok:,} ok, {summary.failed:,} failed, {summary.already_done:,} done before, of "
        f"{summary.listed:,} listed; {summary.wall_s:.1f} s, {summary.images_per_s:.1f} images/s\n"
        f"table {summary.table}\nmodel {summary.model_digest}"
    )


@cli.command()
@click.argument("sql")
@table_option
@click.option("--format", "output", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def query(sql: str, table: str, output: str) -> None:
    """Answer one SELECT over the views images, detections, failures, runs and history."""
    from jobs.output import write_csv, write_json
    from pipeline.query import query as run
    from pipeline.table import ResultTable

    with run(ResultTable(table), sql) as relation:
        if output == "table":
            relation.show(max_width=200, max_rows=1000)
        else:
            write = write_csv if output == "csv" else write_json
            write(relation.to_arrow_reader(), sys.stdout)


@cli.command()
@table_option
@click.option("--output", required=True, help="Folder to make: a path or URL.")
@click.option("--format", "kind", type=click.Choice(["parquet"]), default="parquet", show_default=True)
@json_option
def export(table: str, output: str, kind: str, as_json: bool) -> None:
    """Write the detections as flat files, one row a box."""
    from pipeline.query import export_parquet
    from pipeline.table import ResultTable

    num_rows = export_parquet(ResultTable(table), output)
    click.echo(
        json.dumps({"output": output, "rows": num_rows}) if as_json else f"{num_rows:,} rows written to {output}"
    )


@cli.group(invoke_without_command=True)
@click.option("--table", help="Table of results: a path or s3:// URL.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Runs to list.")
@json_option
@click.pass_context
def runs(context: click.Context, table: str | None, limit: int, as_json: bool) -> None:
    """List the last runs of a table; `runs show ID` tells where the time of one went."""
    from jobs.output import plain
    from jobs.run_report import describe_runs, list_runs
    from pipeline.table import ResultTable

    if context.invoked_subcommand:
        return
    if not table:
        raise click.UsageError("give --table")
    records = list_runs(ResultTable(table), limit)
    click.echo(json.dumps({"runs": plain(records)}) if as_json else describe_runs(records))


@runs.command("show")
@click.argument("run_id")
@table_option
@json_option
def show_run(run_id: str, table: str, as_json: bool) -> None:
    """Tell where the time of a run went, and what would change it; RUN_ID may be the beginning of one."""
    from jobs.output import plain
    from jobs.run_report import bottleneck, describe_run, find_run
    from pipeline.table import ResultTable

    record = find_run(ResultTable(table), run_id)
    found = bottleneck(record)
    told = {"run": plain(record), "bottleneck": asdict(found) if found else None}
    click.echo(json.dumps(told) if as_json else describe_run(record))


@cli.command()
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


@cli.command()
@spec_options(MaintainSettings)
@json_option
def maintain(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Compact the table, delete what is asked or no longer needed; beside a run too, unless rows are to be deleted."""
    from pipeline.maintain import maintain as run

    settings = load_settings(MaintainSettings, spec, flags)
    done = run(settings)
    click.echo(json.dumps(asdict(done)) if as_json else describe_care(done, settings.dry_run))


def describe_care(done: "Maintained", is_dry_run: bool) -> str:
    """Say what was done to a table, for people."""
    left = (
        f" ({done.left_files:,} more are left to the next time: a run kept replacing rows in them)"
        if done.left_files
        else ""
    )
    repaired = (
        f"{done.repaired_rows:,} rows beyond one a key {'would be ' if is_dry_run else ''}removed; "
        if done.repaired_rows
        else ""
    )
    return (
        f"{repaired}{'would be ' if is_dry_run else ''}deleted: {done.deleted_rows:,} rows, {done.deleted_runs:,} records of runs; compacted: "
        f"{done.compacted_files:,} files{left}; vacuumed: {done.vacuumed_files:,} files\n"
        f"table {done.table}: {done.num_files:,} files, {done.size_bytes:,} bytes; {done.wall_s:.1f} s"
    )


@cli.command()
@spec_options(TrainSettings)
@json_option
def train(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Train an SSD on labelled images, narrow and from scratch unless said, and write its package."""
    from jobs.train import train_on_data

    metrics = train_on_data(load_settings(TrainSettings, spec, flags))
    click.echo(json.dumps(metrics) if as_json else json.dumps(metrics, indent=2))


@cli.group()
def data() -> None:
    """Look through labelled images."""


@data.command("check")
@spec_options(DataCheckSettings)
@json_option
def check_data(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Tell what is wrong with labelled images before a training; exit code 1 when something would spoil it."""
    from jobs.data_check import check, describe_report

    report = check(load_settings(DataCheckSettings, spec, flags))
    click.echo(json.dumps(report) if as_json else describe_report(report))
    if not report["is_sound"]:
        sys.exit(1)


@cli.command()
@spec_options(CanarySettings)
@json_option
def canary(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Compare a model with the nightly one on a sample of images, before it is published."""
    from jobs.canary import check_agreement, compare, describe_comparison

    settings = load_settings(CanarySettings, spec, flags)
    comparison = compare(settings)
    click.echo(json.dumps(asdict(comparison)) if as_json else describe_comparison(comparison))
    check_agreement(comparison, settings.min_agreement)


@cli.command()
@spec_options(EvaluateSettings)
@json_option
def evaluate(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Measure a model package on labelled images: mAP as COCO and as Pascal VOC define it."""
    from jobs.evaluate import evaluate_on_data

    metrics = evaluate_on_data(load_settings(EvaluateSettings, spec, flags)).metrics.summary()
    click.echo(json.dumps(metrics) if as_json else json.dumps(metrics, indent=2))


@cli.command()
@click.option(
    "--output", default="demo-out", show_default=True, type=click.Path(path_type=Path), help="Folder to fill."
)
def demo(output: Path) -> None:
    """Draw pictures, detect, query, compare with what was drawn, and annotate; on this machine alone."""
    from jobs.demo.run import demo as run

    run(output)


for command in (model, submit, status, logs, stop, spec):
    cli.add_command(command)


def main() -> None:
    """Run the command line; errors of the user's making are one line, without a traceback."""
    if sys.getfilesystemencoding() != "utf-8":  # a locale in which names of files would be misread
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 the same command again
    log_lines.set_up()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of what a terminal's encoding does not have
    try:
        cli(prog_name="ssd-batch")
    except SsdBatchError as error:
        logger.error("%s", error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
