"""The commands for jobs on a cluster: `submit`, `status`, `logs` and `stop`."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from jobs.commands.options import SPEC, command, json_option
from jobs.specs.load import kind_of, read_spec, setting_options
from jobs.specs.settings import SPEC_KINDS, JobSettings

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
ADDRESS = cloup.option(
    "--address",
    envvar=ADDRESS_VARIABLE,
    default=JobSettings.model_fields["address"].default,
    show_default=True,
    metavar="URL",
    help="The cluster's job server: the head node's dashboard.",
)


@command(
    "submit jobs/nightly.yaml --address http://head:8265 --wait",
    "submit jobs/nightly.yaml --date 2026-01-31 -- --max-planned 500000",
)
@SPEC
@cloup.argument("flags", nargs=-1, type=click.UNPROCESSED)
@cloup.option(
    "--date",
    "day",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="Date of the night; by default today, in the schedule's time zone.",
)
@cloup.option(
    "--wait",
    is_flag=True,
    help="Show what the job prints until it ends, try again what may pass, and exit as the job does.",
)
@setting_options(JobSettings)
@json_option
def submit(
    spec: Path,
    flags: tuple[str, ...],
    day: datetime | None,
    wait: bool,
    as_json: bool,
    **job_flags: Any,
) -> None:
    """Submit the job of a SPEC to a cluster, once per night. FLAGS after -- are those of its command, and override the spec."""
    from jobs.submit.attempts import submit_and_wait
    from jobs.submit.server import JobServer
    from jobs.submit.submission import load_submission

    checked = read_spec(spec)
    submission = load_submission(checked, day.date() if day else None, own_flags(kind_of(checked), flags), job_flags)
    given = submission.settings.model_fields_set  # what was typed, here or in the spec, goes before the environment
    server = JobServer(
        submission.settings.address
        if "address" in given
        else os.environ.get(ADDRESS_VARIABLE, submission.settings.address)
    )
    if not wait:
        submission_id = server.submit(submission)
        click.echo(json.dumps({"submission_id": submission_id}) if as_json else submission_id)
        return
    with goes_on():
        end = submit_and_wait(server, submission, announce=tell, show=lambda text: click.echo(text, nl=False, err=True))
    click.echo(json.dumps(asdict(end)) if as_json else f"{end.submission_id} {end.status.lower()}")
    sys.exit(end.exit_code)


def own_flags(kind: str, flags: tuple[str, ...]) -> dict[str, Any]:
    """Return the flags of another command, as it would understand them."""
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    command = group.commands[kind]
    given = command.make_context(kind, list(flags)).params
    return {name: value for name, value in given.items() if name in SPEC_KINDS[kind].model_fields}


@contextmanager
def goes_on() -> Iterator[None]:
    """Say, if a signal ends what is done within, that this stops no job."""
    try:
        yield
    except KeyboardInterrupt:
        tell("a job that runs on the cluster goes on: ssd-batch status lists it, and ssd-batch stop ID ends it")
        raise


def tell(line: str) -> None:
    """Write a line to standard error."""
    click.echo(line, err=True)


@command("status --address http://head:8265", "status nightly-2026-11-25-1 --json")
@cloup.argument("submission_id", metavar="[ID]", required=False)
@ADDRESS
@json_option
def status(submission_id: str | None, address: str, as_json: bool) -> None:
    """Report a job, or list all that were submitted, the last first."""
    from jobs.submit.server import JobServer

    server = JobServer(address)
    jobs = [server.details(submission_id)] if submission_id else server.jobs()
    rows = [as_row(job) for job in jobs]
    if as_json:
        click.echo(json.dumps(rows[0] if submission_id else rows))
    else:
        click.echo("\n".join(describe(row) for row in rows) or "no jobs")


def as_row(job: "JobDetails") -> dict[str, Any]:
    """Return a job for programs; times are in UTC."""
    begun, done = (
        datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds") if time_ms else None
        for time_ms in (job.start_time, job.end_time)
    )
    return {
        "submission_id": job.submission_id,
        "status": str(job.status),
        "exit_code": job.driver_exit_code,
        "started_at": begun,
        "ended_at": done,
        "message": job.message,
        "entrypoint": job.entrypoint,
    }


def describe(row: dict[str, Any]) -> str:
    """Return a job in one line."""
    code = f" (exit code {row['exit_code']})" if row["exit_code"] else ""
    return f"{row['submission_id']}  {row['status'].lower()}{code}  {row['started_at']} to {row['ended_at'] or 'now'}"


@command("logs nightly-2026-11-25-1", "logs nightly-2026-11-25-1 --follow --address http://head:8265")
@cloup.argument("submission_id", metavar="ID")
@cloup.option("--follow", is_flag=True, help="Follow until the job ends, and exit as it does.")
@ADDRESS
def logs(submission_id: str, follow: bool, address: str) -> None:
    """Show what a job prints."""
    from jobs.submit.server import JobServer

    server = JobServer(address)
    if follow:
        with goes_on():
            sys.exit(server.follow(submission_id, lambda text: click.echo(text, nl=False)).exit_code)
    click.echo(server.logs(submission_id), nl=False)


@command("stop nightly-2026-11-25-1", "stop nightly-2026-11-25-1 --address http://head:8265 --json")
@cloup.argument("submission_id", metavar="ID")
@ADDRESS
@json_option
def stop(submission_id: str, address: str, as_json: bool) -> None:
    """Stop a job; it commits what is finished first."""
    from jobs.submit.server import JobServer

    end = JobServer(address).stop(submission_id)
    click.echo(json.dumps(asdict(end)) if as_json else f"{end.submission_id} {end.status.lower()}")
