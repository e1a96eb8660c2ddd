"""The image's steps, without a container engine: each script runs here as it runs in the image, into another place."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = ROOT / "infra/docker/steps"
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()


def run(script: str, *arguments: object, **environment: str) -> str:
    done = subprocess.run(
        [STEPS / script, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of a new environment, with pip alone."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / "bin/python"


def contents(folder: Path, beginnings: tuple[str, ...]) -> dict[str, str]:
    """Digests of the files whose paths begin so."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if name.startswith(beginnings)
    }


@pytest.mark.slow
def test_debians_packages_are_to_be_had() -> None:
    if os.geteuid() or not shutil.which("apt-get"):
        assert not os.environ.get("CI"), "CI has to run this: as root, on Debian"
        pytest.skip("not root on Debian: the step that installs packages was not tried")
    run("packages.sh", "--simulate")


def test_the_user_is_the_one_that_pods_run_as(tmp_path: Path) -> None:
    if not shutil.which("useradd"):
        assert not os.environ.get("CI"), "CI has to run this: on Linux with shadow's useradd"
        pytest.skip("no useradd: the step that makes the user was not tried")
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "shadow", "group", "gshadow"):
        (tmp_path / "etc" / name).touch()
    run("user.sh", "--prefix", tmp_path)
    assert (tmp_path / "etc/passwd").read_text() == "ssd-batch:x:10001:10001::/tmp:/bin/bash\n"
    assert "USER 10001:10001" in DOCKERFILE


@pytest.mark.slow
def test_dependencies_are_those_of_the_constraints(python: Path, tmp_path: Path) -> None:
    """Two small ones in place of the project's, which take minutes; make install takes these, by the same pip and constraints."""
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["click>=8", "six"]\n')
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    run("dependencies.sh", tmp_path, PYTHON=str(python))
    frozen = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout.split()
    pins = (ROOT / "constraints.txt").read_text().split()
    assert len(frozen) == 2
    assert set(frozen) <= set(pins)


@pytest.mark.slow
def test_the_project_is_installed_with_the_same_bytes_each_time(python: Path) -> None:
    (site,) = python.parents[1].glob("lib/python3*/site-packages")
    found = []
    for _ in range(2):
        run("project.sh", ROOT, PYTHON=str(python))
        assert python.with_name("ssd-batch").exists()
        found.append(contents(site, ("model", "pipeline", "jobs", "ssd_batch")))
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "ssd-batch"], check=True)
    assert found[0] == found[1]
    assert {"jobs/nightly.yaml", "jobs/demo/model/model.json", "model/ssd.py"} <= set(found[0])
    assert any(re.fullmatch(r"model/__pycache__/ssd\..*\.pyc", name) for name in found[0])


def test_the_base_is_pinned_to_its_digest() -> None:
    assert re.search(r"^ARG BASE=python:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_the_context_has_what_the_steps_read_and_no_more() -> None:
    ignored = (ROOT / "infra/docker/Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    named = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert named == {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "model",
        "pipeline",
        "jobs",
        "infra/docker/steps",
    }
    assert all((ROOT / name).exists() for name in named)
