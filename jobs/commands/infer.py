"""The commands that detect: `infer` and `canary`."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.commands.options import command, json_option
from jobs.specs.load import load_settings, spec_options
from pipeline.errors import SsdBatchError, TargetMissedError
from pipeline.inference.settings import CanarySettings, InferSettings

if TYPE_CHECKING:
    from pipeline.inference.summary import Summary

logger = logging.getLogger(__name__)


@command(
    "infer --input photos --table tables/photos --model models/mine",
    "infer --spec jobs/nightly.yaml --since 2026-01-01 --dry-run",
)
@spec_options(InferSettings)
@json_option
def infer(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Detect objects in all images that the table does not hold yet."""
    from pipeline.stages.server import start_early

    settings = load_settings(InferSettings, spec, flags)
    if settings.report:
        check_report(settings.report)
    if not settings.dry_run:
        start_early(settings)
    from pipeline.inference.backfill import backfill
    from pipeline.inference.run import infer as run

    def show(summary: Any) -> None:
        if settings.report and not settings.dry_run:
            write_reports(settings.table, settings.report, summary)
        click.echo(json.dumps(asdict(summary)) if as_json else describe(summary))

    try:
        show(backfill(settings) if settings.dates else run(settings))
    except TargetMissedError as error:
        if error.summary:
            show(error.summary)
        raise


def check_report(out: str) -> None:
    """Check that a report can be written, before the run."""
    from jobs.pages.document import page_at
    from jobs.pages.report_page import page_url

    page_at(page_url(out, "run"), "report")


def write_reports(table: str, out: str, summary: "Summary") -> None:
    """Write the report on a run, or on each day of a backfill. A failure is only logged, because the run is done."""
    from jobs.pages.document import write_page
    from jobs.pages.report_page import page_url, render
    from pipeline.report.report import report
    from pipeline.report.settings import ReportSettings

    for run_id in (of_day.run_id for of_day in getattr(summary, "days", {"": summary}).values()):
        try:
            found = report(ReportSettings(table=table, run=run_id, out=out))
            write_page(page_url(out, run_id), render(found), "report")
        except SsdBatchError as error:
            logger.error("the run is done, but not its report: %s", error)


def describe(summary: "Summary") -> str:
    """Return the summary for people; a backfill's has one line per day."""
    from pipeline.inference.summary import DryRunSummary

    if isinstance(summary, DryRunSummary):
        from jobs.text.runs import describe_dry_run

        return describe_dry_run(summary)
    by_day = getattr(summary, "days", {})
    if any(isinstance(of_day, DryRunSummary) for of_day in by_day.values()):
        return "\n".join(f"{day}: {describe(of_day)}" for day, of_day in by_day.items())
    days = "".join(
        f"{day}: {of_day.planned:,} planned, {of_day.ok:,} ok, {of_day.failed:,} failed, {of_day.already_done:,} done before\n"
        for day, of_day in by_day.items()
    )
    return days + (
        f"run {summary.run_id}: {summary.ok:,} ok, {summary.failed:,} failed, {summary.already_done:,} done before, of "
        f"{summary.listed:,} listed; {summary.wall_s:.1f} s, {summary.images_per_s:.1f} images/s\n"
        f"table {summary.table}\nmodel {summary.model_digest}"
    )


@command(
    "canary --model models/new --against models/blood/latest \\\n      --input photos --output canary.html",
    "canary --model models/new --against models/blood/latest \\\n      --input photos --min-agreement 0.9",
)
@spec_options(CanarySettings)
@json_option
def canary(spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Compare a model with the nightly one on a sample of images, before it is published."""
    from jobs.pages.canary_page import render
    from jobs.pages.document import page_at
    from jobs.text.canary import describe_comparison
    from pipeline.inference.canary import canary as run
    from pipeline.inference.canary import check_agreement

    settings = load_settings(CanarySettings, spec, flags)
    page = page_at(settings.output, "output")
    comparison = run(settings)
    page.write(lambda: render(comparison))
    click.echo(json.dumps(asdict(comparison)) if as_json else describe_comparison(comparison))
    check_agreement(comparison, settings.min_agreement)
