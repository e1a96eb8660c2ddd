"""Jobs are scheduled as jobs/nightly.yaml says, by commands that exist, and are not tried again in vain."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from infra.kubernetes.check import OVERLAYS, render
from jobs.__main__ import cli
from pipeline.errors import HeldError, OvertakenError, SettingError

ROOT = Path(__file__).parents[2]
SCHEDULE = ROOT / "infra/schedule"
JOB = yaml.safe_load((ROOT / "jobs/nightly.yaml").read_text())["job"]
IN_VAIN = {SettingError.exit_code, HeldError.exit_code, OvertakenError.exit_code}


class Unit(configparser.ConfigParser):
    """A systemd unit, whose names have capitals and values per cent signs."""

    def __init__(self, path: Path) -> None:
        super().__init__(interpolation=None)
        self.optionxform = str  # type: ignore[assignment]
        self.read(path)


TIMER, SERVICE = Unit(SCHEDULE / "ssd-batch.timer"), Unit(SCHEDULE / "ssd-batch.service")
CRONTAB = [line for line in (SCHEDULE / "crontab").read_text().splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module", params=[overlay for overlay in OVERLAYS], ids=lambda overlay: overlay.name)
def manifests(request: pytest.FixtureRequest) -> list[dict]:
    return render(request.param)


def test_kubernetes_keeps_the_schedule(manifests: list[dict]) -> None:
    (job,) = [some for some in manifests if some["kind"] in ("CronJob", "RayCronJob")]
    assert (job["spec"]["schedule"], job["spec"]["timeZone"]) == (JOB["schedule"], JOB["time_zone"])


def test_the_timer_keeps_the_schedule() -> None:
    minute, hour, *days = JOB["schedule"].split()
    assert days == ["*", "*", "*"], "the timer and this test know daily schedules"
    assert TIMER["Timer"]["OnCalendar"] == f"*-*-* {int(hour):02}:{int(minute):02}:00 {JOB['time_zone']}"


def test_the_crontab_keeps_the_schedule() -> None:
    assert f"CRON_TZ={JOB['time_zone']}" in CRONTAB
    assert CRONTAB[-1].startswith(JOB["schedule"] + " ")


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        assert not os.environ.get("CI"), "CI has to have systemd"
        pytest.skip("systemd-analyze is not on this machine: the units were not verified")
    for path in (SCHEDULE / "ssd-batch.timer", SCHEDULE / "ssd-batch.service"):
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/ssd-batch/.venv/bin/ssd-batch", "/bin/true"))
    units = [tmp_path / "ssd-batch.timer", tmp_path / "ssd-batch.service"]
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    subprocess.run(["systemd-analyze", "calendar", TIMER["Timer"]["OnCalendar"]], check=True, capture_output=True)


def commands() -> dict[str, str]:
    """All command lines of infra/, without what the shell does around them."""
    rayjob = next(some for some in render(ROOT / "infra/kubernetes/overlays/cpu") if some["kind"] == "RayJob")
    lines = {"service": SERVICE["Service"]["ExecStart"], "crontab": CRONTAB[-1], "rayjob": rayjob["spec"]["entrypoint"]}
    return {name: re.sub(r".*?\bssd-batch (?=[a-z])(.*?)( >>.*)?$", r"\1", line) for name, line in lines.items()}


@pytest.mark.parametrize("where", ["service", "crontab", "rayjob"])
def test_the_commands_exist(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name, *flags = shlex.split(commands()[where].replace("/etc/ssd-batch/nightly.yaml", "jobs/nightly.yaml"))
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, flags)


def test_what_would_end_in_the_same_way_is_not_tried_again(manifests: list[dict]) -> None:
    assert {int(code) for code in SERVICE["Service"]["RestartPreventExitStatus"].split()} == IN_VAIN
    for cronjob in (some for some in manifests if some["kind"] == "CronJob"):
        rules = cronjob["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
        assert set(rules[0]["onExitCodes"]["values"]) == IN_VAIN
    for rayjob in (some for some in manifests if some["kind"] == "RayJob"):
        assert rayjob["spec"]["backoffLimit"] == 0, "KubeRay does not look at exit codes"
