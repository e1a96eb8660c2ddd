"""Jobs are scheduled as jobs/nightly.yaml says, by commands that exist, and are not tried again in vain."""

import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.__main__ import cli
from pipeline.errors import NOT_AGAIN
from tests.infra.conftest import Manifest, rayjob_spec

ROOT = Path(__file__).parents[2]
SCHEDULE = ROOT / "infra/schedule"
JOB = yaml.safe_load((ROOT / "jobs/nightly.yaml").read_text())["job"]


class Unit(configparser.ConfigParser):
    """A systemd unit, whose names have capitals and values per cent signs."""

    def __init__(self, path: Path) -> None:
        super().__init__(interpolation=None)
        self.optionxform = str  # type: ignore[assignment]
        self.read(path)


TIMER, SERVICE, EXPORTER = (Unit(SCHEDULE / f"ssd-batch{name}") for name in (".timer", ".service", "-exporter.service"))
CRONTAB = [line for line in (SCHEDULE / "crontab").read_text().splitlines() if line and not line.startswith("#")]


def test_kubernetes_keeps_the_schedule(manifests: list[Manifest]) -> None:
    (job,) = [some for some in manifests if some["kind"] in ("CronJob", "RayCronJob")]
    assert (job["spec"]["schedule"], job["spec"]["timeZone"]) == (JOB["schedule"], JOB["time_zone"])


def test_the_timer_keeps_the_schedule() -> None:
    minute, hour, *days = JOB["schedule"].split()
    assert days == ["*", "*", "*"], "the timer and this test know daily schedules"
    assert TIMER["Timer"]["OnCalendar"] == f"*-*-* {int(hour):02}:{int(minute):02}:00 {JOB['time_zone']}"


def test_the_crontab_keeps_the_schedule() -> None:
    assert f"CRON_TZ={JOB['time_zone']}" in CRONTAB
    assert CRONTAB[-1].startswith(JOB["schedule"] + " ")


@pytest.mark.parametrize(("code", "mailed"), [(0, ""), (3, "exit code 3\nwhy\n")])
def test_cron_mails_what_a_failed_night_said(code: int, mailed: str, tmp_path: Path) -> None:
    around = CRONTAB[-1].partition("--wait")[2]
    command = ["sh", "-c", f"{{ (echo why; exit {code}){around}"]
    done = subprocess.run(
        command, env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (mailed, "")
    assert (tmp_path / "ssd-batch.log").read_text() == "why\n"


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        assert not os.environ.get("CI"), "CI has to have systemd"
        pytest.skip("systemd-analyze is not on this machine: the units were not verified")
    for path in SCHEDULE.glob("ssd-batch*"):
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/ssd-batch/.venv/bin/ssd-batch", "/bin/true"))
    units = sorted(tmp_path.iterdir())
    assert len(units) == 3
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    subprocess.run(["systemd-analyze", "calendar", TIMER["Timer"]["OnCalendar"]], check=True, capture_output=True)


def check_command(line: str) -> dict[str, Any]:
    """The settings that a command line gives, whose paths are those of this tree; raises where the command does not know them."""
    words = shlex.split(line.replace("/etc/ssd-batch/nightly.yaml", "jobs/nightly.yaml").partition(" >")[0])
    (start,) = (
        index for index, word in enumerate(words) if word.endswith("ssd-batch") and words[index + 1] in cli.commands
    )
    name, *flags = words[start + 1 :]
    return cli.commands[name].make_context(name, flags).params


def test_the_commands_of_the_schedules_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for line in (SERVICE["Service"]["ExecStart"], CRONTAB[-1]):
        assert check_command(line)["wait"]
    assert check_command(EXPORTER["Service"]["ExecStart"])["specs"] == (Path("jobs/nightly.yaml"),)


def test_the_command_of_the_rayjob_exists(manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    spec = rayjob_spec(manifests)
    settings = check_command(spec["entrypoint"])
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    if has_gpus := "nvidia.com/gpu" in workers["template"]["spec"]["containers"][0]["resources"]["limits"]:
        assert (settings["min_detectors"], settings["num_detectors"]) == (
            str(workers["minReplicas"]),
            str(workers["maxReplicas"]),
        )
    assert bool(settings["require_gpu"]) == has_gpus


def test_the_exporter_watches_the_table_of_the_night(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (deployment,) = [some["spec"] for some in manifests if some["kind"] == "Deployment"]
    (container,) = deployment["template"]["spec"]["containers"]
    told = check_command(shlex.join(container["command"]))
    assert (told["specs"], told["host"]) == ((Path("jobs/nightly.yaml"),), "0.0.0.0")
    assert container["ports"] == [{"name": "metrics", "containerPort": told["port"]}]


def test_what_would_end_in_the_same_way_is_not_tried_again(manifests: list[Manifest]) -> None:
    assert {int(code) for code in SERVICE["Service"]["RestartPreventExitStatus"].split()} == set(NOT_AGAIN)
    for cronjob in (some for some in manifests if some["kind"] == "CronJob"):
        rules = cronjob["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
        assert set(rules[0]["onExitCodes"]["values"]) == set(NOT_AGAIN)
    for rayjob in (some for some in manifests if some["kind"] == "RayJob"):
        assert rayjob["spec"]["backoffLimit"] == 0, "KubeRay does not look at exit codes"
