"""Read and write bytes by URL, whatever store it names: paths of this machine, S3, and every store that fsspec knows.

A local file's URI is its absolute path. An object's URI is scheme://bucket/key, with the key as it is and nothing escaped.
See `FsspecStore` for what each of the functions does, and for the errors that it raises.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.storage.fsspec_store import FsspecStore
from pipeline.storage.local import LocalStore
from pipeline.storage.stored import StoredObject
from pipeline.urls import is_local, is_s3

if TYPE_CHECKING:
    import pyarrow as pa

LOCAL, OTHERS = LocalStore(), FsspecStore()


def store_of(url: str) -> FsspecStore:
    """Return the store of an absolute URL."""
    if is_local(url):
        return LOCAL
    return _s3() if is_s3(url) else OTHERS


@cache
def _s3() -> FsspecStore:
    from pipeline.storage.s3_store import ObjectStore  # takes a quarter of a second to import

    return ObjectStore()


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it."""
    return store_of(url).filesystem(url)


def read(url: str) -> bytes:
    """Return a whole small file."""
    return store_of(url).read(url)


def write(url: str, data: bytes) -> None:
    """Write a whole small file."""
    store_of(url).write(url, data)


def create(url: str, data: bytes) -> None:
    """Write a file that does not exist yet."""
    store_of(url).create(url, data)


def put(local: Path, url: str) -> None:
    """Copy a file of this machine to a URL."""
    store_of(url).put(local, url)


def delete(url: str) -> None:
    """Delete one file."""
    store_of(url).delete(url)


def exists(url: str) -> bool:
    """Is there a file, or a folder with something in it?"""
    return store_of(url).exists(url)


def names(url: str) -> set[str]:
    """Return the names in a folder."""
    return store_of(url).names(url)


def walk(url: str) -> Iterator[list[StoredObject]]:
    """Yield all files below a folder or prefix, or the one file, page by page."""
    return store_of(url).walk(url)


def walk_columns(url: str) -> Iterator["pa.Table"]:
    """Yield the same as tables with the columns of `ENTRIES`."""
    return store_of(url).walk_columns(url)


def stat(url: str) -> StoredObject:
    """Return the entry of one file or object."""
    return store_of(url).stat(url)


def check_creates_once(url: str) -> None:
    """Check that if two writers create one file below a folder, one of them fails."""
    store_of(url).check_creates_once(url)


def table_options(url: str) -> dict[str, str]:
    """Return the options with which delta-rs opens the table at a URL."""
    return store_of(url).table_options(url)


def table_patience_s(url: str) -> float:
    """Return the seconds for which delta-rs may repeat a request to a table's store."""
    return store_of(url).table_patience_s()
