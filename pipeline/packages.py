"""Model packages by URL."""

import logging

from model.package import RECORD_FILE, WEIGHTS_FILE, ModelPackage, PackageError
from pipeline import storage
from pipeline.aliases import DIGEST, look_up
from pipeline.errors import SettingError, reason

logger = logging.getLogger(__name__)


def read_package(url: str) -> ModelPackage:
    """The package in a folder, local or in object storage; or a published one by its alias or digest.

    Raises:
        SettingError: it is not there, may not be read, is no package or a trunk, or not the one that was published.
    """
    package = read_start(url)
    try:
        package.network()
    except PackageError as error:
        raise SettingError(f"model {url!r} can't be used: {error}") from error
    return package


def read_start(url: str) -> ModelPackage:
    """As `read_package`, for a training to start from: it may be a trunk, of which no network can be made."""
    try:
        folder, digest = locate(url)
        package = ModelPackage.from_files(
            {name: storage.read(f"{folder}/{name}") for name in (RECORD_FILE, WEIGHTS_FILE)}
        )
    except OSError as error:
        raise SettingError(
            f"model {url!r} can't be read: {error}; it must be a folder with {RECORD_FILE} and {WEIGHTS_FILE}"
        ) from error
    except PackageError as error:
        raise SettingError(f"model {url!r} can't be used: {error}") from error
    if digest and package.digest != digest:
        raise SettingError(
            f"model {url!r} can't be used: the package in {folder!r} has the digest {package.digest}, so it was changed "
            "after it was published; publish the right one again"
        )
    return package


def locate(url: str) -> tuple[str, str | None]:
    """The folder that holds a package, and the digest that it must have, where it was published under one.

    Raises:
        SettingError: no such alias or digest is published there.
        OSError: it may not be looked for.
    """
    folder = storage.absolute(url).rstrip("/")
    root, _, name = folder.rpartition("/")
    if DIGEST.fullmatch(name):
        return folder, name
    is_top = not root or root.endswith("/")  # of a disk or a store
    if is_top or storage.exists(f"{folder}/{RECORD_FILE}") or not (digest := look_up(root, name)):
        return folder, None
    logger.info("model %s is %s", url, digest)
    return f"{root}/{digest}", digest


def check_free(url: str) -> None:
    """Make sure that a package can be written to a folder later, after hours of training.

    Raises:
        SettingError: a package is there already, or nothing can be written.
    """
    folder = storage.absolute(url).rstrip("/")
    try:
        fs, path = storage.filesystem(f"{folder}/{RECORD_FILE}")
        if fs.exists(path):
            raise SettingError(f"output {url!r} holds a model package already; name another folder")
        storage.write(f"{folder}/.probe", b"probe")
        storage.delete(f"{folder}/.probe")
    except OSError as error:
        raise SettingError(f"output {url!r} can't be written: {reason(error)}") from error


def write_package(package: ModelPackage, url: str) -> None:
    """Write the package's files into a folder; the weights first, so that a record never stands without them."""
    folder = storage.absolute(url).rstrip("/")
    for name, content in sorted(package.to_files().items(), reverse=True):
        storage.write(f"{folder}/{name}", content)
