"""The Delta table of results: its columns, and how it is opened and appended to."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from pipeline.errors import SettingError, reason
from pipeline.storage import store
from pipeline.storage.table_files import LOG_FOLDER, PARTITION, WORK_FOLDER
from pipeline.table.schema import SCHEMA
from pipeline.urls import absolute, is_local, is_s3

logger = logging.getLogger(__name__)

NUM_LOOKED_AT = 1000
"""The number of names in a folder without a table that are looked at, as a table may be in one of them."""
KEY = ("uri", "etag", "model_digest")
ROW = (*KEY, "run_id", "processed_at")
"""The columns that tell a row from all others, also from the one that it replaced."""
MARKS = (*KEY, PARTITION, "status")
"""The columns that every version of ours gives its tables. Other columns may have come later, or belong to a newer version."""
REWRITES = "ssd-batch-rewrites"
"""The application whose Delta transactions count the commits that rewrite data files.

Each rewrite carries the next transaction. Without them, delta-rs accepts two commits that replace the same file, which doubles
its rows. It refuses the second of two commits that carry the same transaction. Appends carry none, and succeed during a rewrite.
"""
READABLE = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
"""The reader features of Delta that change nothing in the meaning of data files, which are read as they are."""
MISREAD = re.compile(r"[%\\\[\]]")
"""A pattern of the characters in a name that delta-rs misreads, or at which it panics."""
LAST_CHECKPOINT = "_last_checkpoint"
DAMAGED_CHECKPOINT = re.compile(r"Invalid Checkpoint|Parquet error", re.IGNORECASE)
"""A pattern of the messages by which delta-rs reports that it can't read its log's checkpoint."""


@dataclass
class ResultTable:
    """The table at a URL, which may not exist yet. Opening it checks that it is ours, and writes nothing."""

    url: str

    def __post_init__(self) -> None:
        self.url = absolute(self.url).rstrip("/")
        if not (is_local(self.url) or is_s3(self.url)):  # elsewhere nothing keeps two runs apart
            raise SettingError(f"table {self.url!r} is neither a local path nor an s3:// URL; name one of these")
        if found := MISREAD.search(self.url):
            raise SettingError(
                f"table {self.url!r} has {found[0]!r} in its name, which readers misread; name another place"
            )
        self._options = store.table_options(self.url)
        if self.exists:
            self._check_features()
            self._check_columns()
        elif self._holds_other_files():
            within = next(
                (name for name in sorted(self._folders()) if store.exists(f"{self.url}/{name}/{LOG_FOLDER}")), ""
            )
            raise SettingError(
                f"table {self.url!r} is a place with other files in it, and no table; "
                + (f"{self.url}/{within} is one" if within else "name a table, or for a new one an empty place")
            )
        elif outer := enclosing_table(self.url):
            raise SettingError(f"table {self.url!r} would be inside the table {outer!r}; name a place outside of it")

    @cached_property
    def exists(self) -> bool:
        """Does the table exist already?"""
        try:
            return DeltaTable.is_deltatable(self.url, storage_options=self._options)
        except (OSError, DeltaError, ValueError) as error:
            raise SettingError(f"table {self.url!r} can't be opened: {reason(error)}") from error

    @cached_property
    def delta(self) -> DeltaTable:
        """Return the table as it was last read."""
        try:
            return DeltaTable(self.url, storage_options=self._options)
        except (OSError, DeltaError) as error:
            raise SettingError(f"table {self.url!r} can't be opened: {reason(error)}{self._way_out(error)}") from error

    def _way_out(self, error: Exception) -> str:
        """Return the advice for a damaged checkpoint of the log, or an empty text for another error.

        A checkpoint only repeats commits, which are files of their own.
        """
        if not DAMAGED_CHECKPOINT.search(str(error)):
            return ""
        log = f"{self.url}/{LOG_FOLDER}"
        if not store.exists(f"{log}/{0:020}.json"):
            return (
                f". A checkpoint in {log} is damaged, and the commits before it are gone: bring it back from a backup"
            )
        return (
            f". A checkpoint in {log} is damaged. All commits are there next to it: move {LAST_CHECKPOINT} and the damaged *.checkpoint.parquet "
            "out of that folder, and ssd-batch maintain writes a new one"
        )

    def _check_features(self) -> None:
        """Check that the table's files mean what they say: no rows are deleted in other files, no columns have other names."""
        protocol, settings = self.delta.protocol(), self.delta.metadata().configuration
        unread = set(protocol.reader_features or ()) - READABLE
        if settings.get("delta.columnMapping.mode", "none") != "none":
            unread.add("columnMapping")
        if unread:
            raise SettingError(
                f"table {self.url!r} uses Delta features that are not read here: {', '.join(sorted(unread))}; drop them with the "
                "engine that added them (ALTER TABLE … DROP FEATURE), or name another place for --table"
            )

    def _check_columns(self) -> None:
        """Check that the table is ours, and that its columns have our types."""
        stored = {field.name: field.type for field in self.delta.schema().fields}
        wrong = [f"no column {name}" for name in MARKS if name not in stored]
        if not wrong and self.delta.metadata().partition_columns != [PARTITION]:
            wrong = [f"other partitions than {PARTITION}"]
        wrong = wrong or [
            f"a column {field.name} of type {stored[field.name]}, not {field.type}"
            for field in Schema.from_arrow(SCHEMA).fields
            if stored.get(field.name, field.type) != field.type
        ]
        if wrong:
            raise SettingError(
                f"table {self.url!r} was made by something else: it has {', '.join(wrong)}; name another place for --table"
            )

    def _folders(self) -> set[str]:
        """Return some of the names in the table's place, on this machine."""
        if not is_local(self.url) or not os.path.isdir(self.url):
            return set()
        with os.scandir(self.url) as entries:
            return {entry.name for entry in islice(entries, NUM_LOOKED_AT)}

    def _holds_other_files(self) -> bool:
        try:
            return any(entry for page in store.walk(self.url + "/") for entry in page)
        except FileNotFoundError as error:
            if is_s3(self.url):
                raise SettingError(f"table {self.url!r}: {error}") from error
            return False
        except OSError as error:
            raise SettingError(f"table {self.url!r} can't be read: {reason(error)}") from error

    @property
    def schema(self) -> pa.Schema:
        """Return `SCHEMA` and the table's other columns: those from paths, or of a newer version."""
        more = [field for field in self.stored_schema if field.name not in SCHEMA.names]
        return pa.schema([*SCHEMA, *more])

    @property
    def stored_schema(self) -> pa.Schema:
        """Return the columns that the table has so far. A table of an older version lacks some of `SCHEMA` until a run writes."""
        if not self.exists:
            return SCHEMA
        return pa.schema(self.delta.schema().to_arrow())

    def create(self) -> None:
        """Make the table if there is none.

        Raises:
            SettingError: nothing can be written there, or the store can't keep two writers apart.
        """
        store.check_creates_once(f"{self.url}/{WORK_FOLDER}")
        if self.exists:
            return
        try:
            self._create()
        except (OSError, DeltaError) as error:
            raise SettingError(f"table {self.url!r} can't be written: {reason(error)}") from error
        self.exists = True

    def lacking(self, path_columns: Iterable[pa.Field] = ()) -> list[pa.Field]:
        """Return the columns of `SCHEMA` and from paths that the table lacks."""
        return [field for field in [*SCHEMA, *path_columns] if field.name not in self.stored_schema.names]

    def add_columns(self, columns: Iterable[pa.Field], properties: CommitProperties | None = None) -> None:
        """Commit that the table has more columns.

        Only the holder of the table may do so, because rows that others are about to append lack them.
        """
        self.delta.alter.add_columns(Schema.from_arrow(pa.schema(columns)).fields, commit_properties=properties)

    def _create(self) -> None:
        options = self._options
        try:
            self.delta = DeltaTable.create(
                self.url, SCHEMA, partition_by=[PARTITION], name="ssd-batch", storage_options=options
            )
        except DeltaError:  # another run has just made it; the fence decides between the two
            if not DeltaTable.is_deltatable(self.url, storage_options=options):
                raise
            self.delta = DeltaTable(self.url, storage_options=options)

    def data_files(self) -> list[str]:
        """Return the Parquet files of the current version, as the log names them. A glob would count too many."""
        if not self.exists:
            return []
        return file_urls(self.refreshed(), self.url)

    def refreshed(self) -> DeltaTable:
        """Return the table as it is now. It is opened anew if credentials were renewed."""
        options = store.table_options(self.url)
        if options == self._options:
            self.delta.update_incremental()
        else:
            self._options = options
            self.delta = DeltaTable(self.url, storage_options=options)
        self._check_features()
        return self.delta

    def working_url(self, name: str) -> str:
        """Return the URL of a working file; see `working_file`."""
        return f"{self.url}/{WORK_FOLDER}/{name}"

    @contextmanager
    def working_file(self, local: Path, name: str) -> Iterator[str]:
        """Keep a file in the table's work folder, where all nodes can read it, for the time of a run.

        Raises:
            SettingError: nothing can be written there.
        """
        url = self.working_url(name)
        try:
            store.put(local, url)
        except OSError as error:
            raise SettingError(f"table {self.url!r} can't be written: {reason(error)}") from error
        try:
            yield url
        finally:
            try:
                store.delete(url)
            except OSError as error:  # maintain deletes it; how the run ended matters more
                logger.warning("%s can't be deleted: %s", url, reason(error))

    def append(self, rows: pa.Table, properties: CommitProperties | None = None) -> None:
        """Append rows, as one commit.

        Args:
            rows: rows with columns of `schema`, in any order; missing columns become null, others are left out.
            properties: the properties that the commit carries.
        """
        write_deltalake(self.delta, self._completed(rows), mode="append", commit_properties=properties)

    def replace(self, rows: pa.Table, properties: CommitProperties | None = None) -> None:
        """Replace the rows that have the same keys, as one commit. A row without an old one is added.

        Raises:
            CommitFailedError: another rewrite was committed since the table was last read.
        """
        same_key = " AND ".join(f"old.{column} = new.{column}" for column in KEY)
        merge = self.delta.merge(
            self._completed(rows),
            same_key,
            source_alias="new",
            target_alias="old",
            commit_properties=self.rewriting(properties),
        )
        merge.when_matched_update_all().when_not_matched_insert_all().execute()

    def uncount(self, run_id: str, run_date: date, properties: CommitProperties | None = None) -> None:
        """Commit that the failures of a run do not count as attempts.

        Raises:
            CommitFailedError: another rewrite was committed since the table was last read.
        """
        self.delta.update(
            updates={"num_attempts": "num_attempts - 1"},
            predicate=f"{PARTITION} = '{run_date}' AND run_id = '{run_id}' AND status = 'failed'",
            commit_properties=self.rewriting(properties),
        )

    def _completed(self, rows: pa.Table) -> pa.Table:
        """Return rows with all columns of the table as it was last read. Another engine may have added some since the run began."""
        missing = [field for field in self.schema if field.name not in rows.column_names]
        for field in missing:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        return rows.select(self.schema.names)

    def rewriting(self, properties: CommitProperties | None) -> CommitProperties:
        """Return a commit's properties, with the next transaction of `REWRITES` after the table as it was last read."""
        properties = properties or CommitProperties()
        following = Transaction(REWRITES, (self.delta.transaction_version(REWRITES) or 0) + 1)
        transactions = [*(properties.app_transactions or []), following]
        return CommitProperties(properties.custom_metadata, properties.max_commit_retries, transactions)


def file_urls(delta: DeltaTable, url: str) -> list[str]:
    """Return the data files of a table that was opened at a URL, below this URL.

    delta-rs escapes its URLs, and follows symbolic links.
    """
    root = unquote(delta.table_uri).removeprefix("file://")
    return [f"{url}/{unquote(uri).removeprefix(root)}" for uri in delta.file_uris()]


def enclosing_table(url: str) -> str | None:
    """Return the Delta table that a path or URL is inside of, if any.

    A table inside of another is refused, because each of the two would treat the other's files as its own.
    """
    folder = absolute(url).rstrip("/")
    while (folder := folder.rpartition("/")[0]) and not folder.endswith("/"):
        with suppress(OSError):  # a user who may not look there can't have a table there
            if store.exists(f"{folder}/{LOG_FOLDER}"):
                return folder
    return None
