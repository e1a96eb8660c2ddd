"""The environment of a job on a cluster: the uploaded code or an image, and variables."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._private.runtime_env.packaging import create_package

from jobs.specs.settings import JobSettings
from jobs.submit.submission import Submission
from pipeline.errors import SettingError

MIB = 2**20
CODE = ("model/**/*.py", "pipeline/**/*.py", "jobs/**/*.py", "jobs/*.yaml", "jobs/demo/model/*")
"""The files of a working tree that are uploaded: those of the installed package. Other files, such as keys and data, are not."""
NUM_NAMED = 3
"""The number of files that are named of a package that is too large."""


@contextmanager
def runtime_env(submission: Submission) -> Iterator[dict[str, Any]]:
    """Yield Ray's runtime environment of a job. The uploaded package exists only within the context."""
    settings = submission.settings
    environment: dict[str, Any] = {"env_vars": settings.env_vars} if settings.env_vars else {}
    if settings.image:
        environment["image_uri"] = settings.image
    if not settings.working_dir:
        yield environment
        return
    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
        yield environment | {"working_dir": str(pack(submission.folder / settings.working_dir, settings, Path(folder)))}


def pack(working_dir: Path, settings: JobSettings, folder: Path) -> Path:
    """Make a zip file of the code, in a folder.

    Raises:
        SettingError: the working tree has no code, or the zip file is too large.
    """
    if not (working_dir / "jobs/__main__.py").is_file():
        raise SettingError(
            f"working_dir: {str(working_dir)!r} is no working tree of ssd-batch: jobs/__main__.py is missing"
        )
    package, shipped = folder / "working_dir.zip", folder / "shipped"
    for path in (path for pattern in CODE for path in working_dir.glob(pattern)):
        if path.is_file() and not path.is_symlink():  # a link may lead to anything
            copy = shipped / path.relative_to(working_dir)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    create_package(str(shipped), package, include_gitignore=False, excludes=list(settings.excludes), logger=None)
    if package.stat().st_size > settings.max_package_mib * MIB:
        with zipfile.ZipFile(package) as content:
            largest = sorted(content.infolist(), key=lambda file: file.compress_size, reverse=True)[:NUM_NAMED]
        names = ", ".join(f"{file.filename} ({file.compress_size / MIB:.1f} MiB)" for file in largest)
        raise SettingError(
            f"max_package_mib: {str(working_dir)!r} is {package.stat().st_size / MIB:.1f} MiB zipped, more than "
            f"{settings.max_package_mib:g}; exclude what is no code, such as {names}"
        )
    return package
