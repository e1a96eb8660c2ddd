"""The new folder that an export makes, on this machine or in object storage."""

import io
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TextIO

from pipeline.errors import SettingError
from pipeline.storage import store
from pipeline.table.delta import enclosing_table
from pipeline.urls import absolute

NUM_THREADS = 32
MAX_PENDING = 256
"""The number of small files that wait to be written, which bounds the memory that they take."""


class NewFolder(AbstractContextManager["NewFolder"]):
    """A folder to write files into.

    Args:
        url: the folder's path or URL.

    Raises:
        SettingError: the folder is not empty, is inside of a table, or can't be written.
    """

    def __init__(self, url: str) -> None:
        self.url = absolute(url).rstrip("/")
        with self._writes():
            fs, path = store.filesystem(self.url)
            if fs.exists(path) and fs.find(path):
                raise SettingError(f"output {self.url!r} is not empty; name a new folder")
            if outer := enclosing_table(self.url):
                raise SettingError(
                    f"output {self.url!r} would be inside the table {outer!r}; name a place outside of it"
                )
        self._threads = ThreadPoolExecutor(NUM_THREADS)
        self._pending: deque[Future[None]] = deque()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, in a thread of its own. An error is raised later, by the next call or at the end."""
        self._pending.append(self._threads.submit(store.write, f"{self.url}/{name}", content))
        if len(self._pending) > MAX_PENDING:
            self._finish_one()

    @contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """Open a large file for writing. It is in the folder when the context ends well."""
        with self._writes(), tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
            local = Path(folder, "file")
            with local.open("wb") as opened:
                yield opened
            store.put(local, f"{self.url}/{name}")

    @contextmanager
    def text_file(self, name: str) -> Iterator[TextIO]:
        """Open a large file for writing text in UTF-8, with line ends as they are given."""
        with self.file(name) as file:
            text = io.TextIOWrapper(file, "utf-8", newline="")
            yield text
            text.detach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all files are written."""
        with self._threads:
            if error:
                self._threads.shutdown(cancel_futures=True)
                return
            while self._pending:
                self._finish_one()

    def _finish_one(self) -> None:
        with self._writes():
            self._pending.popleft().result()

    @contextmanager
    def _writes(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SettingError(f"output {self.url!r} can't be written: {error}") from error
