"""The Delta table of results: its columns, and how it is opened and appended to."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from pipeline import storage
from pipeline.errors import SettingError, reason

DETECTION = pa.struct(
    [
        ("label_id", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("xmin", pa.float32()),
        ("ymin", pa.float32()),
        ("xmax", pa.float32()),
        ("ymax", pa.float32()),
    ]
)
SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("last_modified", pa.timestamp("us", "UTC")),
        ("model_name", pa.string()),
        ("model_digest", pa.string()),
        ("run_id", pa.string()),
        ("run_date", pa.date32()),
        ("processed_at", pa.timestamp("us", "UTC")),
        ("status", pa.string()),
        ("error_stage", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
        ("num_attempts", pa.int32()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("num_detections", pa.int32()),
        ("max_score", pa.float32()),
        ("detections", pa.list_(DETECTION)),
    ]
)
"""One row an image version and model. Boxes are pixels of the original image as a viewer shows it."""

KEY = ("uri", "etag", "model_digest")
PARTITION = "run_date"
MARKS = (*KEY, PARTITION, "status")
"""Columns that a table of ours has, whichever version made it; the others may have come later, or be a newer version's."""
REWRITES, DELETIONS = "ssd-batch-rewrites", "ssd-batch-deletions"
"""Applications whose Delta transactions count the commits that rewrite data files, and those of them that delete rows.

Each rewrite carries the next one. delta-rs by itself lets two commits through that replace the same file, which doubles its
rows; it refuses the second of two that carry the same transaction. Appends carry neither, and pass beside a rewrite.
"""
WORK_FOLDER = "_ssd_batch"
"""Beside the table's own folders; Delta passes over names that start with `_`."""
MISREAD = re.compile(rf"[%\\\[\]]|/({'|'.join(SCHEMA.names)})=")
"""Names that delta-rs takes for others or panics at, and folders that DuckDB takes for columns."""


@dataclass
class ResultTable:
    """The table at a URL; it may not exist yet. Opening checks that it is ours, and writes nothing."""

    url: str

    def __post_init__(self) -> None:
        self.url = storage.absolute(self.url).rstrip("/")
        if found := MISREAD.search(self.url):
            raise SettingError(
                f"table {self.url!r} has {found[0]!r} in its name, which readers misread; name another place"
            )
        self._options = storage.table_options(self.url)
        if self.exists:
            self._check_columns()
        elif self._holds_other_files():
            raise SettingError(f"table {self.url!r} is a place with other files in it; name an empty one")

    @cached_property
    def exists(self) -> bool:
        """Is a table there already?"""
        try:
            return DeltaTable.is_deltatable(self.url, storage_options=self._options)
        except (OSError, DeltaError, ValueError) as error:
            raise SettingError(f"table {self.url!r} can't be opened: {reason(error)}") from error

    @cached_property
    def delta(self) -> DeltaTable:
        """The table as it was seen last."""
        try:
            return DeltaTable(self.url, storage_options=self._options)
        except (OSError, DeltaError) as error:
            raise SettingError(f"table {self.url!r} can't be opened: {reason(error)}") from error

    def _check_columns(self) -> None:
        """Make sure that the table is ours, and that its columns have our types."""
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

    def _holds_other_files(self) -> bool:
        try:
            return any(entry for page in storage.walk(self.url + "/") for entry in page)
        except FileNotFoundError as error:
            if storage.is_s3(self.url):
                raise SettingError(f"table {self.url!r}: {error}") from error
            return False
        except OSError as error:
            raise SettingError(f"table {self.url!r} can't be read: {reason(error)}") from error

    @property
    def schema(self) -> pa.Schema:
        """`SCHEMA`, and what the table has beside: columns from paths, or of a newer version."""
        more = [field for field in self.stored_schema if field.name not in SCHEMA.names]
        return pa.schema([*SCHEMA, *more])

    @property
    def stored_schema(self) -> pa.Schema:
        """The columns that the table has so far; an older version's lacks some of `SCHEMA` until a run writes."""
        if not self.exists:
            return SCHEMA
        return pa.schema(self.delta.schema().to_arrow())

    def create(self, path_columns: pa.Schema | None = None) -> None:
        """Make the table where there is none, and add the columns that it lacks, of `SCHEMA` and from paths.

        Raises:
            SettingError: nothing can be written there, or its store can't keep two writers apart.
        """
        storage.check_creates_once(f"{self.url}/{WORK_FOLDER}")
        try:
            if not self.exists:
                self._create()
                self.exists = True
            new = [field for field in [*SCHEMA, *(path_columns or [])] if field.name not in self.stored_schema.names]
            if new:
                self.delta.alter.add_columns(Schema.from_arrow(pa.schema(new)).fields)
        except (OSError, DeltaError) as error:
            raise SettingError(f"table {self.url!r} can't be written: {reason(error)}") from error

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
        """The Parquet files of the current version, as the log names them (a glob would count too many)."""
        if not self.exists:
            return []
        return [unquote(uri) for uri in self.refreshed().file_uris()]  # delta-rs gives them as URLs, escaped

    def refreshed(self) -> DeltaTable:
        """The table as it is now; opened anew where credentials were renewed."""
        options = storage.table_options(self.url)
        if options == self._options:
            self.delta.update_incremental()
        else:
            self._options = options
            self.delta = DeltaTable(self.url, storage_options=options)
        return self.delta

    @contextmanager
    def working_file(self, local: Path, name: str) -> Iterator[str]:
        """Put a file beside the table, where all nodes read it, for the time of a run.

        Raises:
            SettingError: nothing can be written there.
        """
        url = f"{self.url}/{WORK_FOLDER}/{name}"
        try:
            storage.put(local, url)
        except OSError as error:
            raise SettingError(f"table {self.url!r} can't be written: {reason(error)}") from error
        try:
            yield url
        finally:
            storage.delete(url)

    def append(self, rows: pa.Table, properties: CommitProperties | None = None) -> None:
        """Commit rows, as one commit.

        Args:
            rows: columns as `schema`, in any order.
            properties: what the commit carries.
        """
        write_deltalake(self.delta, rows.select(self.schema.names), mode="append", commit_properties=properties)

    def replace(self, rows: pa.Table, properties: CommitProperties | None = None) -> None:
        """Commit rows in place of those with the same keys, as one commit; a row without an old one is added.

        Raises:
            CommitFailedError: another rewrite was committed since the table was seen last.
        """
        same_key = " AND ".join(f"old.{column} = new.{column}" for column in KEY)
        merge = self.delta.merge(
            rows.select(self.schema.names),
            same_key,
            source_alias="new",
            target_alias="old",
            commit_properties=self.advancing(properties, REWRITES),
        )
        merge.when_matched_update_all().when_not_matched_insert_all().execute()

    def advancing(self, properties: CommitProperties | None, *applications: str) -> CommitProperties:
        """What a commit carries, and the next transaction of these applications after the table as it was seen last."""
        properties = properties or CommitProperties()
        following = [Transaction(name, (self.delta.transaction_version(name) or 0) + 1) for name in applications]
        transactions = [*(properties.app_transactions or []), *following]
        return CommitProperties(properties.custom_metadata, properties.max_commit_retries, transactions)
