"""The code that goes with a job."""

import random
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from jobs.demo import PACKAGE
from jobs.specs.settings import JobSettings
from jobs.submit.environment import pack
from pipeline.errors import SettingError


def test_the_package_has_the_code_and_no_more(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    code = [
        "jobs/__main__.py",
        "jobs/demo/model/model.json",
        "jobs/nightly.yaml",
        "model/ssd.py",
        "pipeline/stages/local.py",
    ]
    others = [
        ".env", "id_rsa", ".aws/credentials", "credentials.json", "kubeconfig", "jobs/credentials.json", "pipeline/.env",
        "data/big.bin", "notes.txt", ".git/config", "tests/test_a.py", "jobs/demo/out/a.jpg",
    ]  # fmt: skip
    for name in [*code, *others]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "model/key.py").symlink_to(tree / "id_rsa")
    assert shipped(tree, tmp_path) == code
    assert shipped(tree, tmp_path, excludes=("jobs/demo",)) == [name for name in code if "demo" not in name]


def test_the_package_has_all_that_a_job_needs(tmp_path: Path) -> None:
    tree = Path(__file__).parents[3]
    names = set(shipped(tree, tmp_path))
    assert {str(path.relative_to(tree)) for path in PACKAGE.iterdir()} < names
    assert all(f"{module}.py" in names for module in ("jobs/__main__", "pipeline/stages/preload", "model/ssd"))
    assert not [name for name in names if name.startswith((".", "tests", "demo-out"))]


def shipped(tree: Path, folder: Path, **settings: Any) -> list[str]:
    with TemporaryDirectory(dir=folder) as place:
        package = pack(tree, JobSettings(**settings), Path(place))
        return sorted(zipfile.ZipFile(package).namelist())


def test_a_package_that_is_too_large_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "jobs").mkdir(parents=True)
    (tree / "jobs/__main__.py").touch()
    (tree / "jobs/data.py").write_bytes(random.Random(0).randbytes(200_000))
    with pytest.raises(
        SettingError, match=r"^max_package_mib: .* is 0\.2 MiB zipped, more than 0\.1; .* jobs/data\.py"
    ):
        pack(tree, JobSettings(max_package_mib=0.1), tmp_path)


def test_a_folder_without_the_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^working_dir: .* is no working tree of ssd-batch"):
        pack(tmp_path, JobSettings(), tmp_path)
