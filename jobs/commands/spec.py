"""The commands for specs: `spec check` and `spec schema`."""

import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import cloup
from cronsim import CronSim

from jobs.commands.options import SPEC, examples, json_option
from jobs.specs.load import check_settings, kind_of, read_spec
from jobs.specs.settings import SPEC_KINDS, JobSettings


@cloup.group(epilog=examples("spec check jobs/nightly.yaml", "spec schema"))
def spec() -> None:
    """Check job specs."""


@spec.command("check", epilog=examples("spec check jobs/nightly.yaml", "spec check jobs/nightly.yaml --json"))
@SPEC
@json_option
def check_spec(spec: Path, as_json: bool) -> None:
    """Report what is wrong with a SPEC, and exit with 2 if something is. Nothing is started."""
    checked = read_spec(spec)
    kind = kind_of(checked)
    settings = check_settings(SPEC_KINDS[kind], checked.settings)
    due = next_due(checked.job)
    if as_json:
        click.echo(json.dumps({"kind": kind, "settings": settings.model_dump(mode="json"), "next_due": due}))
    else:
        click.echo(f"{spec}: a spec for ssd-batch {kind}" + (f"; next due at {due}" if due else ""))


def next_due(job: JobSettings) -> str | None:
    """Return when the schedule wants the next job, in its time zone."""
    if job.schedule is None:
        return None
    return next(CronSim(job.schedule, datetime.now(ZoneInfo(job.time_zone)))).isoformat()


@spec.command("schema", epilog=examples("spec schema", "spec schema > spec.schema.json"))
def show_schema() -> None:
    """Print the JSON schema of specs, for editors."""
    from jobs.specs.schema import spec_schema

    click.echo(json.dumps(spec_schema(), indent=2))
