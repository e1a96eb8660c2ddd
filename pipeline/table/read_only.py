"""The files that SQL sees: they can be read, and nothing can be written."""

import os
import threading
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem, filesystem

from pipeline.urls import is_s3

SCHEME = "table://"


def name_below(folder: str, url: str) -> str:
    """Return the name that a file below a folder has in SQL.

    The name has no folders further up: DuckDB would treat one that is named camera=7, for example, as a column.

    Raises:
        ValueError: the file is not below the folder.
    """
    if not url.startswith(f"{folder}/"):
        raise ValueError(f"{url!r} is not below {folder!r}")
    return SCHEME + url.removeprefix(f"{folder}/")


class SharedFile:
    """A file that several threads read at once, each at its own position.

    DuckDB shares one file between its threads, and seeks before it reads.

    Args:
        file: a binary file that is open for reading.
    """

    def __init__(self, file: Any) -> None:
        self._file, self._lock, self._of_thread = file, threading.Lock(), threading.local()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position of the calling thread alone, and return it."""
        with self._lock:
            self._file.seek(self.tell())
            self._of_thread.place = self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        """Return the position of the calling thread."""
        place: int = getattr(self._of_thread, "place", 0)
        return place

    def read(self, size: int = -1) -> bytes:
        """Return the bytes from the position of the calling thread on."""
        with self._lock:
            self._file.seek(self.tell())
            content: bytes = self._file.read(size)
        self._of_thread.place = self.tell() + len(content)
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class ReadOnlyFiles(AbstractFileSystem):  # type: ignore[misc]
    """The files of this machine or of S3 that DuckDB reads. Every operation that writes, moves or deletes is refused.

    The checks are here, below SQL, because the statements of SQL differ with DuckDB's version.

    Args:
        folder: the URL of the folder that all these files are below.
    """

    protocol = "table"
    cachable = False  # else fsspec would share one instance between storages

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder
        if is_s3(folder):
            from pipeline.storage import s3

            self._files: AbstractFileSystem = s3.data_filesystem()
        else:
            self._files = filesystem("file")

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        """Open a file for reading.

        Raises:
            PermissionError: the file is to be opened in another mode.
        """
        if mode != "rb":
            raise PermissionError(f"{path} can only be read")
        return SharedFile(self._files.open(self._url(path), mode))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return a file's size and other facts, under the name that SQL uses."""
        return {**self._files.info(self._url(path)), "name": path}

    def modified(self, path: str) -> datetime:
        """Return the time at which a file was written."""
        written: datetime = self._files.modified(self._url(path))
        return written

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the file of exactly this name, if it exists. Names are not patterns here."""
        return [path] if self.exists(path) else []

    def _url(self, path: str) -> str:
        return f"{self._folder}/{path.removeprefix(SCHEME)}"
