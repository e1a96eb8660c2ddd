"""Model packages by URL."""

from model.package import RECORD_FILE, WEIGHTS_FILE, ModelPackage, PackageError
from pipeline import storage
from pipeline.errors import SettingError


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


def write_package(package: ModelPackage, url: str) -> None:
    """Write the package's files into a folder; the weights first, so that a record never stands without them."""
    folder = storage.absolute(url).rstrip("/")
    for name, content in sorted(package.to_files().items(), reverse=True):
        storage.write(f"{folder}/{name}", content)
