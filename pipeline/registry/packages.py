"""The reading and writing of model packages by URL."""

import logging
import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from model.config import Precision
from model.package_files import RECORD_FILE, WEIGHTS_FILE, PackageError, PackageFiles
from pipeline.errors import SettingError, ended_by, reason
from pipeline.registry.aliases import DIGEST, aliases, look_up
from pipeline.storage import store
from pipeline.urls import absolute, is_local

if TYPE_CHECKING:
    from model.package import ModelPackage

logger = logging.getLogger(__name__)

RUNS_FOLDER = "_runs"
"""The folder in which a training keeps its runs, in the folder of its package-to-be."""


def read_files(
    url: str, precision: Precision = "auto", min_score: str | None = None, test_time_flip: bool = False
) -> PackageFiles:
    """Read a package's files. Check the record, and the digest if the package was published. torch is not imported.

    Args:
        url: a folder, local or in object storage, or a published package by its alias or digest.
        precision: the type in which the network is to compute.
        min_score: the least score of detections, if it is not that of the package; see `PackageFiles.with_min_score`.
        test_time_flip: also detect in mirror images.

    Raises:
        SettingError: the package is not there, may not be read, has a wrong file or another precision, or was changed after it was
            published.
    """
    try:
        folder, digest = locate(url)
        record = PackageFiles({RECORD_FILE: store.read(f"{folder}/{RECORD_FILE}")}).record
        files = PackageFiles({name: store.read(f"{folder}/{name}") for name in record.file_names})
        record.check_precision(precision)
        found = files.digest
    except OSError as error:
        raise SettingError(f"model {url!r} can't be read: {error}; {_way_out(url)}") from error
    except PackageError as error:
        raise unusable(url, error) from error
    if digest and found != digest:
        raise SettingError(
            f"model {url!r} can't be used: the package in {folder!r} has the digest {found}, so it was changed "
            "after it was published; publish the right one again"
        )
    try:
        files = files.with_min_score(min_score) if min_score else files
        return files.with_test_time_flip() if test_time_flip else files
    except PackageError as error:
        raise unusable(url, error) from error


def _way_out(url: str) -> str:
    """Return what to give instead of a URL at which there is no package."""
    folder = absolute(url).rstrip("/")
    with suppress(OSError):
        if published := aliases(folder):
            return f"models are published there: name one, such as {url.rstrip('/')}/{published[-1]}"
        if store.exists(f"{folder}/seed-0/{RECORD_FILE}"):
            return f"name the model of one seed, such as {url.rstrip('/')}/seed-0"
        if store.exists(f"{folder}/{RUNS_FOLDER}"):
            return "a training that writes it has not ended; run the same command again"
    return f"it must be a folder with {RECORD_FILE} and {WEIGHTS_FILE}"


def unusable(url: str, error: PackageError) -> SettingError:
    """Return the error that names the setting `model`, for a package whose files were read."""
    return SettingError(f"model {url!r} can't be used: {error}")


def read_package(url: str, precision: Precision = "auto", test_time_flip: bool = False) -> "ModelPackage":
    """Read a package that a network can be made of; raises as `read_files`."""
    package = read_start(url, precision, test_time_flip)
    try:
        package.network()
    except PackageError as error:
        raise unusable(url, error) from error
    return package


def read_start(url: str, precision: Precision = "auto", test_time_flip: bool = False) -> "ModelPackage":
    """Read a package for a training to start from, which may be a trunk; raises as `read_files`."""
    from model.package import ModelPackage  # torch takes seconds to import, and most of what is here does not need it

    files = read_files(url, precision, test_time_flip=test_time_flip)
    try:
        return ModelPackage.from_files(files.content)
    except PackageError as error:
        raise unusable(url, error) from error


def locate(url: str) -> tuple[str, str | None]:
    """Return the folder that holds a package, and the digest that it must have if it was published under one.

    Raises:
        SettingError: no such alias or digest is published there.
        OSError: the storage does not allow the search.
    """
    folder = absolute(url).rstrip("/")
    root, _, name = folder.rpartition("/")
    if DIGEST.fullmatch(name):
        return folder, name
    is_top = not root or root.endswith("/")  # of a disk or a store
    if is_top or store.exists(f"{folder}/{RECORD_FILE}") or not (digest := look_up(root, name)):
        return folder, None
    logger.info("model %s is %s", url, digest)
    return f"{root}/{digest}", digest


def check_free(url: str) -> None:
    """Make sure that a package can be written to a folder later, after hours of training.

    Raises:
        SettingError: a package is there already, or nothing can be written.
    """
    folder = absolute(url).rstrip("/")
    try:
        fs, path = store.filesystem(f"{folder}/{RECORD_FILE}")
        if fs.exists(path):
            raise SettingError(f"output {url!r} holds a model package already; name another folder")
        probe = f"{_nearest(folder)}/.probe-{uuid.uuid4().hex}"
        store.write(probe, b"probe")
        store.delete(probe)
    except OSError as error:
        raise SettingError(f"output {url!r} can't be written: {reason(error)}") from error


def _nearest(folder: str) -> str:
    """Return the folder, or its nearest parent that exists. A probe must not make a folder that a failure would leave empty."""
    while is_local(folder) and not os.path.lexists(folder):
        folder = folder.rpartition("/")[0] or "/"
    return folder.rstrip("/")


def write_package(package: "ModelPackage", url: str) -> None:
    """Write the package's files into a folder.

    Raises:
        SsdBatchError: the store fails, or is full.
    """
    try:
        write_files(package, url)
    except OSError as error:
        raise ended_by(f"model {url!r} can't be written", error) from error


def write_files(package: "ModelPackage", url: str) -> None:
    """Write the package's files into a folder. The record is written last, so that it is never stored without the others."""
    folder = absolute(url).rstrip("/")
    files = package.to_files()
    for name in sorted(files, key=RECORD_FILE.__eq__):
        store.write(f"{folder}/{name}", files[name])
