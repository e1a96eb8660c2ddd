import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.training import provenance
from pipeline.training.events import Started
from pipeline.training.history import TrainingHistory
from pipeline.training.provenance import code_version
from pipeline.training.settings import ClusterTraining

SCRIPT = "from pipeline.training.provenance import code_version; print(code_version())"


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


def version_in(folder: Path) -> str:
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
                          check=True, capture_output=True, text=True).stdout.strip()  # fmt: skip


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    """Not that of a checkout around the code, which may be any other project's."""
    root = Path(provenance.__file__).parents[2]
    for folder in ("jobs", "pipeline", "model"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "other").write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-m", "other")
    assert version_in(tmp_path) == "0.1.0"
    git(tmp_path, "add", "pipeline")
    git(tmp_path, "commit", "-m", "code")
    assert re.fullmatch(r"[0-9a-f]{40}", version_in(tmp_path))
    (tmp_path / "other").write_text("changed")
    assert re.fullmatch(r"[0-9a-f]{40}-dirty", version_in(tmp_path))


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert code_version() == "0.1.0"


def test_what_is_told() -> None:
    history = TrainingHistory(1, [Started(0, 2, "cpu", False), Started(5, 1, "cpu", False)])
    settings = ClusterTraining(seed=3, mlflow="http://me:secret@host:5000")
    told = provenance.provenance(settings, history, 12.4)
    assert told["settings"]["mlflow"] == "http://host:5000"
    assert (told["settings"]["seed"], told["num_workers"], told["devices"], told["seconds"]) == (3, [1, 2], ["cpu"], 12)
