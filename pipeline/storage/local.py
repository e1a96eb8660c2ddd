"""The store for the file system of this machine."""

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

from pipeline.storage.fsspec_store import FsspecStore
from pipeline.storage.stored import PAGE, StoredObject


class LocalStore(FsspecStore):
    """The files of this machine, by absolute path. A file appears whole, and if two writers create it, one of them fails."""

    def write(self, url: str, data: bytes) -> None:
        """Write a whole file. Readers see all of it, or the file that was there before."""
        os.replace(self._beside(url, data), url)

    def create(self, url: str, data: bytes) -> None:
        """Write a file that does not exist yet. It is made as a link, which fails if the file exists."""
        beside = self._beside(url, data)
        try:
            os.link(beside, url)
        finally:
            os.unlink(beside)

    def _beside(self, url: str, data: bytes) -> str:
        """Write into a new file next to the named one, and return its path."""
        beside = f"{url}.{uuid.uuid4().hex}"
        super().write(beside, data)
        return beside

    def walk(self, url: str) -> Iterator[list[StoredObject]]:
        """Yield all files below a folder, following links to folders, or yield the one file."""
        if not os.path.isdir(url):
            yield [self.stat(url)]
            return
        os.scandir(url).close()  # raises an error if the folder may not be listed
        entries = _local_files(url, (os.path.realpath(url),))
        while page := list(islice(entries, PAGE)):
            yield page

    def stat(self, url: str) -> StoredObject:
        """Return the entry of one file."""
        return _local_object(url, os.stat(url))


def _local_files(folder: str, roots: tuple[str, ...]) -> Iterator[StoredObject]:
    """Yield all files below a folder. Links to folders are followed, except to folders that are walked anyway.

    Args:
        folder: the folder, which exists.
        roots: the folders at which the walks that led here began, with links resolved.
    """
    unlisted: list[OSError] = []
    for above, folders, files in os.walk(folder, onerror=unlisted.append):
        for name in files:
            path = os.path.join(above, name)
            if not _is_utf_8(path):
                yield StoredObject(_readable(path), "", None, None, unusable="their names are not UTF-8; rename them")
                continue
            with suppress(FileNotFoundError):  # The file may vanish between the two looks; so may the target of a link.
                if os.path.isfile(path):
                    yield _local_object(path, os.stat(path))
        for name in folders:
            path = os.path.join(above, name)
            if os.path.islink(path):
                target = os.path.realpath(path)
                if not any(_is_in(target, root) or _is_in(root, target) for root in roots):
                    yield from _local_files(path, (*roots, target))
    for error in unlisted:
        why = f"folders that can't be listed ({error.strerror})"
        yield StoredObject(_readable(error.filename), "", None, None, unusable=why)


def _is_utf_8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _readable(path: str) -> str:
    """Return a path with backslashes for the bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _local_object(path: str, status: os.stat_result) -> StoredObject:
    try:
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError):  # after the year 9999: a time that is not known
        modified = None
    return StoredObject(path, local_etag(status), status.st_size, modified)


def local_etag(status: os.stat_result) -> str:
    """Return the text that names the version of a local file."""
    return f"{status.st_mtime_ns}-{status.st_size}"
