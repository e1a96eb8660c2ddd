"""Model packages by URL."""

from model.package import RECORD_FILE, WEIGHTS_FILE, ModelPackage, PackageError
from pipeline import storage
from pipeline.errors import SettingError, reason


def read_package(url: str) -> ModelPackage:
    """The package in a folder, local or in object storage.

    Raises:
        SettingError: it is not there, may not be read, or is no package.
    """
    folder = storage.absolute(url).rstrip("/")
    try:
        files = {name: storage.read(f"{folder}/{name}") for name in (RECORD_FILE, WEIGHTS_FILE)}
        package = ModelPackage.from_files(files)
        package.network()
    except OSError as error:
        raise SettingError(
            f"model {url!r} can't be read: {error}; it must be a folder with {RECORD_FILE} and {WEIGHTS_FILE}"
        ) from error
    except PackageError as error:
        raise SettingError(f"model {url!r} can't be used: {error}") from error
    return package


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
