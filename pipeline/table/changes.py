"""The rows that came into a table since an earlier version, for those who read only what is new."""

from collections.abc import Iterable
from dataclasses import dataclass

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipeline.errors import SettingError, reason
from pipeline.storage import store
from pipeline.table.delta import ResultTable, file_urls


@dataclass(frozen=True)
class Changes:
    """The files that show what changed. A file that is in both versions has no new row."""

    files: tuple[str, ...]
    """The data files that came since."""
    old_files: tuple[str, ...] = ()
    """The data files that have gone since. Their rows are not new where other files have them, as after a compaction."""


def changes_since(table: ResultTable, version: int, files: Iterable[str]) -> Changes:
    """Return the changes since a version.

    Args:
        table: the table, as it was last read.
        version: the earlier version. 0 is the table without rows.
        files: the table's data files now.

    Raises:
        SettingError: the table has no such version, or no longer.
    """
    now = table.delta.version()
    if version > now:
        raise SettingError(f"since_version: {version} is not there yet: table {table.url!r} is at version {now}")
    if version == 0:  # the log may have forgotten it, and it had no files
        return Changes(tuple(files))
    try:
        then = DeltaTable(table.url, version=version, storage_options=store.table_options(table.url))
        old = dict.fromkeys(file_urls(then, table.url))
    except (OSError, DeltaError) as error:
        raise SettingError(
            f"since_version: table {table.url!r} no longer knows version {version}; 0 gives all rows: {reason(error)}"
        ) from error
    new = dict.fromkeys(files)
    return Changes(
        files=tuple(file for file in new if file not in old), old_files=tuple(file for file in old if file not in new)
    )
