"""The flat copies of tables in the user's cache, which follow the tables' logs."""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import SettingError, SsdBatchError, reason
from pipeline.explore import build
from pipeline.explore.files import MappedFiles
from pipeline.explore.search import Search
from pipeline.table.delta import ResultTable
from pipeline.table.read_only import name_below

logger = logging.getLogger(__name__)

IMAGE_ID = ".image_id"
"""The column with the number of a row."""
MEMORY_LIMIT = "48MB"
"""The memory of the DuckDB that answers."""
LOOK_EVERY_S = 5.0
"""The seconds between two looks at the table's log."""
BUILD_SHARE = 0.2
"""The share of the time that goes into new copies, while a run keeps committing."""


def cache_folder() -> Path:
    """Return the folder for copies in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ssd-batch", "explore")


class Copy:
    """A copy of a table's version, open for reading.

    Args:
        folder: its folder, see `pipeline.explore.build`.
    """

    def __init__(self, folder: Path) -> None:
        self.version = folder.name
        self._files = MappedFiles(folder)
        rows = self._files.table(build.ROWS)
        ids = pa.py_buffer(np.arange(len(rows), dtype=np.int32))  # pa.array would import pandas
        self._rows = rows.append_column(IMAGE_ID, pa.Array.from_buffers(pa.int32(), len(rows), [None, ids]))
        self._db = duckdb.connect()
        self._db.execute("SET TimeZone = 'UTC'")
        self._db.execute("SET memory_limit = ?", [MEMORY_LIMIT])
        # Not in the copy's folder, which others may delete.
        spilled = tempfile.mkdtemp(prefix="ssd-batch-duckdb-")
        self._remove_spilled = weakref.finalize(self, shutil.rmtree, spilled, ignore_errors=True)
        self._db.execute("SET temp_directory = ?", [spilled])
        # Not a method: a circle would keep the files of an old copy on the disk.
        self.search = Search(folder, self._files, partial(_find_text, self._db, self._rows))

    def rows(self, ids: Iterable[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return rows by their numbers, in that order: all columns of the table, or some."""
        chosen = self._rows.select(columns or [name for name in self._rows.schema.names if not name.startswith(".")])
        parts = [chosen.slice(0, 0), *(chosen.slice(image_id, 1) for image_id in ids)]
        found: list[dict[str, Any]] = pa.concat_tables(parts).to_pylist()
        return found

    def images(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Open a DuckDB with the rows as `images`, for one thread."""
        return _images(self._db, self._rows)

    def release(self) -> None:
        """Let go of the memory that the last answers took of the files."""
        self._files.release()

    def close(self) -> None:
        """Close the connections, and remove what was spilled."""
        self._db.close()
        self._remove_spilled()


@contextmanager
def _images(db: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    with db.cursor() as cursor:
        cursor.register("images", rows)
        yield cursor


def _find_text(db: duckdb.DuckDBPyConnection, rows: pa.Table, text: str) -> NDArray[np.int32]:
    """Return the numbers of the rows whose URI has a text in it, in order."""
    with _images(db, rows) as cursor:
        # Arrow would import pandas to make an array.
        found = cursor.execute(f'SELECT "{IMAGE_ID}" FROM images WHERE contains(uri, ?)', [text]).fetchnumpy()
    return np.asarray(found[IMAGE_ID])


def _is_being_built(folder: Path) -> bool:
    """Is it a copy that a living process has not finished? Its name ends with the process's ID; see `pipeline.explore.build`."""
    _, _, pid = folder.name.partition(".")
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ValueError, ProcessLookupError):
        return False
    return True


class Cache:
    """The copy of one table.

    Args:
        table: the table.
        folder: the folder for copies.

    Raises:
        SettingError: there is no table, or the folder can't be made.
        SsdBatchError: the table can't be copied.
    """

    def __init__(self, table: ResultTable, folder: Path) -> None:
        if not table.exists:
            raise SettingError(f"table {table.url!r}: no table is there; make one with `ssd-batch infer`")
        self._url, self._folder = table.url, folder
        self._name = hashlib.sha256(table.url.encode()).hexdigest()[:16]
        self._ended = threading.Event()
        self._follower = threading.Thread(target=self._follow)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(f"cache {str(folder)!r} can't be made: {reason(error)}") from error
        self.copy = Copy(self._built())

    def start(self) -> None:
        """Begin to follow the table's log."""
        self._follower.start()

    def close(self) -> None:
        """Stop following, and close the copy."""
        self._ended.set()
        if self._follower.is_alive():
            self._follower.join()
        self.copy.close()

    def _built(self) -> Path:
        """Return the folder of the copy of the table's current version, after building it if there is none."""
        table = ResultTable(self._url)
        names = sorted(name_below(table.url, file) for file in table.data_files())
        code = (
            file.read_text() for file in sorted(Path(__file__).parent.glob("*.py"))
        )  # which makes the copy, and reads it
        contents = "\n".join([*code, *map(str, table.schema), *names])
        version = hashlib.sha256(contents.encode()).hexdigest()[:16]
        path = self._folder / f"{self._name}-{version}"
        if not path.exists():
            self._build(path)
        for old in self._folder.glob(f"{self._name}-*"):
            if old != path and not _is_being_built(old):
                shutil.rmtree(old, ignore_errors=True)  # Whoever has it open keeps reading it.
        return path

    def _build(self, path: Path) -> None:
        command = [sys.executable, "-m", "pipeline.explore.build", self._url, str(path)]
        logger.info("copying table %r into %s", self._url, path)
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603 our own program
        if done.returncode:
            last_line = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
            raise SsdBatchError(f"table {self._url!r} can't be copied: {last_line}")

    def _follow(self) -> None:
        """Replace the copy when the table has changed. An error is logged, and the old copy stays."""
        wait_s = LOOK_EVERY_S
        while not self._ended.wait(wait_s):
            begun_s = time.monotonic()
            try:
                path = self._built()
                if path.name != self.copy.version:
                    self.copy = Copy(path)  # who still answers from the one before keeps it open
            except Exception as error:
                logger.warning("the explorer shows what was there before: %s", reason(error))
            wait_s = max(LOOK_EVERY_S, (time.monotonic() - begun_s) / BUILD_SHARE)
