"""The commands for a table of results: `query`, `report`, `export`, `runs` and `maintain`."""

import json
import logging
import re
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from jobs.commands.options import command, examples, json_option, table_option
from jobs.specs.load import check_settings, given, load_settings, setting_options, spec_options
from pipeline.errors import SsdBatchError
from pipeline.exports.settings import ExportSettings
from pipeline.report.settings import ReportSettings
from pipeline.table.settings import MaintainSettings

if TYPE_CHECKING:
    from pipeline.exports.export import Exported
    from pipeline.table.maintain import Maintained

logger = logging.getLogger(__name__)

COUNTS_BOXES = re.compile(r"\b(images|detections|failures)\b", re.IGNORECASE)
"""A pattern of the views that have rows of all models."""
TELLS_MODELS_APART = re.compile("model|run_id", re.IGNORECASE)


@command(
    'query --table tables/photos "SELECT * FROM runs"',
    'query --table tables/photos --format csv \\\n      "SELECT label, count(*) FROM detections GROUP BY label"',
)
@cloup.argument("sql")
@table_option
@cloup.option(
    "--format",
    "output",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="What to print.",
)
@cloup.option(
    "--since-version",
    type=click.IntRange(min=0),
    help="Read only the rows that came after this version of the table. The version that was read is said on standard error.",
)
def query(sql: str, table: str, output: str, since_version: int | None) -> None:
    """Answer one SELECT over the views images, detections, failures, runs and history."""
    from jobs.text.values import write_csv, write_json
    from pipeline.table.delta import ResultTable
    from pipeline.table.find_runs import models_of
    from pipeline.table.query import query as run

    results = ResultTable(table)
    if COUNTS_BOXES.search(sql) and not TELLS_MODELS_APART.search(sql):
        with suppress(SsdBatchError):  # the query itself may need no records of runs
            if len(digests := models_of(results)) > 1:
                logger.warning(
                    "the table has results of %d models, and this reads all of them: add WHERE model_digest = '%s' for the last one's",
                    len(digests),
                    digests[0],
                )
    with run(results, sql, since_version=since_version or 0) as relation:
        if since_version is not None:
            version = results.delta.version()
            logger.info("read version %d of the table; the next time, give --since-version %d", version, version)
        if output == "table":
            relation.show(max_width=200, max_rows=1000)
        else:
            write = write_csv if output == "csv" else write_json
            write(relation.to_arrow_reader(), sys.stdout)


@command(
    "export --table tables/photos --output flat --format csv",
    "export --table tables/photos --output boxes --format coco \\\n      --min-score 0.5 --copy-images",
)
@setting_options(ExportSettings)
@json_option
def export(as_json: bool, **flags: Any) -> None:
    """Copy detections into flat files or into a data set: for a spreadsheet, for COCO, YOLO, Pascal VOC or FiftyOne."""
    from pipeline.exports.export import export as run

    done = run(check_settings(ExportSettings, given(flags)))
    click.echo(json.dumps(asdict(done)) if as_json else describe_export(done))


def describe_export(done: "Exported") -> str:
    """Say what was exported, for people."""
    of_images = f" in {done.images:,} images" if done.images is not None else ""
    lacking = f"; {done.not_copied:,} images could not be copied, and images.csv says why" if done.not_copied else ""
    return f"{done.rows:,} boxes{of_images} written to {done.output}{lacking}"


@cloup.group(
    invoke_without_command=True,
    epilog=examples("runs --table tables/photos", "runs show 20261125T02 --table tables/photos"),
)
@cloup.option("--table", metavar="PATH_OR_URL", help="Table of results, local or s3://.")
@cloup.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Number of runs to list.")
@json_option
@click.pass_context
def runs(context: click.Context, table: str | None, limit: int, as_json: bool) -> None:
    """List the last runs of a table; `runs show ID` shows where the time of one went."""
    from jobs.text.runs import describe_runs
    from jobs.text.values import plain
    from pipeline.table.delta import ResultTable
    from pipeline.table.find_runs import list_runs

    if context.invoked_subcommand:
        return
    if not table:
        raise click.UsageError("give --table")
    records = list_runs(ResultTable(table), limit)
    click.echo(json.dumps({"runs": plain(records)}) if as_json else describe_runs(records))


@runs.command(
    "show",
    epilog=examples(
        "runs show 20261125T020000Z-1a2b3c4d --table tables/photos", "runs show 20261125 --table tables/photos --json"
    ),
)
@cloup.argument("run_id")
@table_option
@json_option
def show_run(run_id: str, table: str, as_json: bool) -> None:
    """Show where the time of a run went, and what would change it; RUN_ID may be the beginning of an ID."""
    from jobs.text.runs import bottleneck, describe_run
    from jobs.text.values import plain
    from pipeline.table.delta import ResultTable
    from pipeline.table.find_runs import find_run

    record = find_run(ResultTable(table), run_id)
    found = bottleneck(record)
    report = {"run": plain(record), "bottleneck": asdict(found) if found else None}
    click.echo(json.dumps(report) if as_json else describe_run(record))


@command(
    "report --table tables/photos",
    "report --table tables/photos --run 20261125T02 --out reports/",
)
@setting_options(ReportSettings)
@json_option
def report(as_json: bool, **flags: Any) -> None:
    """Write a page on one run: counts, what changed since earlier runs, failures by cause, pictures with boxes."""
    from jobs.pages.document import page_at, write_page
    from jobs.pages.report_page import page_url, render
    from jobs.text.report import describe_shift
    from pipeline.report.report import report as collect

    settings = check_settings(ReportSettings, given(flags))
    is_printed = settings.out == "-"
    if is_printed and as_json:
        raise click.UsageError("--json and --out - both need standard output; give one of them")
    page_at(None if is_printed else page_url(settings.out, "run"), "out")
    found = collect(settings)
    if is_printed:
        click.echo(render(found))
        return
    url = page_url(settings.out, found.counts.run_id)
    write_page(url, render(found), "out")
    changes = [describe_shift(shift) for shift in found.shifts]
    answer = {"out": url, "run_id": found.counts.run_id, "changes": changes}
    click.echo(json.dumps(answer) if as_json else "\n".join([*changes, f"report written to {url}"]))


@command(
    "maintain --table tables/photos --dry-run",
    "maintain --table tables/photos --delete-uris forget.csv --erase",
)
@spec_options(MaintainSettings)
@json_option
def maintain(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Compact a table, and delete what is asked or no longer needed. Only a deletion or a repair needs the table to itself."""
    from pipeline.table.maintain import maintain as run

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
