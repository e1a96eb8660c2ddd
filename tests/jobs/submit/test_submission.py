"""What is submitted, without a cluster."""

import shlex
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from jobs.__main__ import cli
from jobs.specs.load import check_settings, given, kind_of, load_settings, read_spec
from jobs.specs.settings import SPEC_KINDS, JobSettings
from jobs.submit.attempts import submit_and_wait
from jobs.submit.submission import Submission, load_submission, night_of
from pipeline.errors import SettingError
from pipeline.inference.settings import InferSettings

DAY = date(2026, 11, 25)
INFER = "kind: infer\ninput: [s3://bucket/a b, /photos]\ntable: s3://bucket/table\nmodel: s3://bucket/model\n"


@pytest.fixture
def job(tmp_path: Path) -> Any:
    def job(text: str, flags: dict[str, Any] | None = None, job_flags: dict[str, Any] | None = None) -> Submission:
        path = tmp_path / "Nightly run.yaml"
        path.write_text(text)
        return load_submission(read_spec(path), DAY, flags or {}, job_flags or {})

    return job


def flags_of(job: Submission) -> dict[str, Any]:
    """What the command on the head node understands."""
    _, *command = shlex.split(job.entrypoint)
    assert command[:3] == ["-m", "jobs", job.kind]
    return cli.commands[job.kind].make_context(job.kind, command[3:]).params


def test_the_command_on_the_cluster_has_the_settings_of_the_spec(job: Any) -> None:
    """And the night as its run_date, and the cluster that it is in."""
    made = job(INFER + "take_over: true\nsince: 2026-01-01\nbatch_size: 4", {"batch_size": "16", "dry_run": False})
    settings = load_settings(
        InferSettings, None, {k: v for k, v in flags_of(made).items() if k in InferSettings.model_fields}
    )
    assert settings.input == ("s3://bucket/a b", "/photos")
    assert (settings.take_over, settings.batch_size, settings.dry_run) == (True, 16, False)
    assert (settings.address, settings.run_date, str(settings.since)) == ("auto", DAY, "2026-01-01 00:00:00+00:00")


def test_attempts_that_would_each_begin_anew_are_refused(job: Any) -> None:
    text = "kind: train\ndata: [/d]\noutput: /o\nname: x\nrestart: true\n"
    server: Any = None
    with pytest.raises(SettingError, match=r"^restart: each of max_attempts 3 would begin anew; give --max-attempts 1"):
        submit_and_wait(server, job(text), print, print)
    with pytest.raises(AttributeError, match="last_attempt"):
        submit_and_wait(server, job(text, job_flags={"max_attempts": "1"}), print, print)


def test_days_of_their_own_stay(job: Any) -> None:
    assert flags_of(job(INFER + "dates: 2026-01-01/2026-01-31"))["run_date"] is None
    assert flags_of(job(INFER + "run_date: 2026-02-03"))["run_date"] == "2026-02-03"


@pytest.mark.parametrize(
    ("schedule", "zone", "due_at"),
    [
        ("0 2 * * *", "Europe/Berlin", "2026-11-25T02:00:00+01:00"),
        ("0 0 * * *", "UTC", "2026-11-25T00:00:00+00:00"),
        ("30 5,17 * * *", "UTC", "2026-11-25T05:30:00+00:00"),
        ("0 2 1 * *", "UTC", None),
    ],
)
def test_a_night_is_due_as_the_schedule_says(schedule: str, zone: str, due_at: str | None, job: Any) -> None:
    """By the first time that it names on the day."""
    made = job(INFER + f"job: {{schedule: '{schedule}', time_zone: {zone}}}")
    assert flags_of(made)["due_at"] == due_at
    assert flags_of(job(INFER))["due_at"] is None


@pytest.mark.parametrize(
    ("now", "submission_id", "due_at"),
    [
        ("2026-11-25T01:00:20+00:00", "nightly-run-2026-11-25-0100-1", "2026-11-25T01:00:00+00:00"),
        ("2026-11-25T02:59:00+00:00", "nightly-run-2026-11-25-0200-1", "2026-11-25T02:00:00+00:00"),
    ],
)
def test_each_hour_of_an_hourly_schedule_is_a_job_of_its_own(
    now: str, submission_id: str, due_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = type(
        "Clock", (datetime,), {"now": classmethod(lambda cls, zone: datetime.fromisoformat(now).astimezone(zone))}
    )
    monkeypatch.setattr("jobs.submit.submission.datetime", clock)
    path = tmp_path / "Nightly run.yaml"
    path.write_text(INFER + "job: {schedule: '0 * * * *'}")
    made = load_submission(read_spec(path), None, {}, {})
    assert (made.submission_id(1), flags_of(made)["due_at"]) == (submission_id, due_at)


@pytest.mark.parametrize(
    ("schedule", "now", "day", "due"),
    [
        ("0 23 * * *", "2026-11-25T23:05", 25, "25 23:00"),
        ("0 23 * * *", "2026-11-26T00:30", 25, "25 23:00"),
        ("0 23 * * *", "2026-11-26T22:59", 26, "26 23:00"),
        ("0 2 * * *", "2026-11-26T01:59", 26, "26 02:00"),
        ("0 2 * * *", "2026-11-26T14:00", 26, "26 02:00"),
        ("0 22,23 * * *", "2026-11-26T00:30", 25, "25 23:00"),
        ("0 23 * * 3", "2026-11-26T09:00", 25, "25 23:00"),
        ("0 23 * * 3", "2026-11-26T12:00", 26, None),
    ],
)
def test_a_night_that_is_made_up_after_midnight_keeps_its_name(
    schedule: str, now: str, day: int, due: str | None
) -> None:
    job = JobSettings(schedule=schedule, time_zone="Europe/Berlin")
    found, times = night_of(job, datetime.fromisoformat(now).replace(tzinfo=ZoneInfo("Europe/Berlin")))
    assert (found.day, f"{times[0]:%d %H:%M}" if times else None) == (day, due)


@pytest.mark.parametrize("path", sorted(Path("jobs").glob("*.yaml")), ids=lambda path: path.name)
def test_a_specs_settings_reach_the_command_as_flags(path: Path) -> None:
    spec = read_spec(path)
    settings = check_settings(SPEC_KINDS[kind_of(spec)], spec.settings)
    made = Submission(kind_of(spec), "name", DAY, settings, spec.job, path.parent)
    flags = {name: value for name, value in flags_of(made).items() if name in type(settings).model_fields}
    changed = {"address", "run_date", "due_at"}
    assert check_settings(type(settings), given(flags)).model_dump(exclude=changed) == settings.model_dump(
        exclude=changed
    )


def test_other_kinds(job: Any) -> None:
    training = job(
        "kind: train\ndata: s3://b/data\noutput: s3://b/model\nname: m\nscales: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]"
    )
    assert flags_of(training)["scales"] == ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7")
    assert "run_date" not in flags_of(training)
    assert "address" not in flags_of(job("kind: maintain\ntable: s3://b/table"))


def test_a_night_and_an_attempt_make_the_id(job: Any) -> None:
    assert job(INFER).submission_id(2) == "nightly-run-2026-11-25-2"
    assert job(INFER + "job: {name: cells}").submission_id(1) == "cells-2026-11-25-1"
    assert job(INFER + "job: {name: cells}", job_flags={"name": "blood"}).name == "blood"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input: a\ntable: /b\nmodel: c", "^kind: missing in '.*'; say which command it is for: infer, "),
        (
            INFER.replace("s3://bucket/table", "tables/blood"),
            "^table: 'tables/blood' would be in a folder of the head node",
        ),
        ("kind: train\ndata: s3://b/data\noutput: models\nname: m", "^output: 'models' would be in"),
        (INFER.replace("/photos", "photos"), "^input: 'photos' would be in"),
        (INFER.replace("s3://bucket/model", "models/cells"), "^model: 'models/cells' would be in"),
        ("kind: train\ndata: /d\noutput: /m\nname: m\ninit: models/vgg", "^init: 'models/vgg' would be in"),
        (INFER.replace("s3://bucket/model", "jobs/demo/model"), "^model: 'jobs/demo/model' would be in"),
        (INFER + "report: report.html", "^report: 'report.html' would be in"),
        ("kind: evaluate\ndata: /d\nmodel: /m\nlabel_errors: worth.csv", "^label_errors: 'worth.csv' would be in"),
        (INFER + "job: {working_dir: ., image: a}", "^working_dir: the image has the code already"),
        (INFER + "batch_size: 0", "^batch_size: "),
    ],
)
def test_what_a_cluster_could_not_use_is_refused(text: str, message: str, job: Any) -> None:
    with pytest.raises(SettingError, match=message):
        job(text)


@pytest.mark.parametrize(("model", "settings"), [("jobs/demo/model", "working_dir: ."), ("models/mine", "image: a")])
def test_a_model_may_come_with_the_code_or_the_image(model: str, settings: str, job: Any) -> None:
    assert flags_of(job(INFER.replace("s3://bucket/model", model) + f"job: {{{settings}}}"))["model"] == model


def test_a_training_may_start_from_nothing(job: Any) -> None:
    assert flags_of(job("kind: train\ndata: /d\noutput: /m\nname: m\ninit: random"))["init"] == "random"


def test_a_spec_is_checked(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(INFER + "job: {schedule: 0 2 * * *, time_zone: Europe/Berlin}")
    result = CliRunner().invoke(cli, ["spec", "check", str(tmp_path / "spec.yaml")])
    assert result.exit_code == 0, result.output
    assert "a spec for ssd-batch infer; next due at " in result.output
    assert "T02:00:00+0" in result.output


def test_settings_are_checked_once_more() -> None:
    with pytest.raises(SettingError, match=r"^max_attempts: .*greater than or equal to 1, not '0'$"):
        check_settings(JobSettings, {"max_attempts": "0"})
