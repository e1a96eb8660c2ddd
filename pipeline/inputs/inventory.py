"""Read an S3 Inventory: the list of a bucket that S3 itself writes daily or weekly, as CSV or Parquet next to a manifest.json."""

import csv
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.errors import SettingError, reason
from pipeline.storage import store
from pipeline.storage.entries import to_table
from pipeline.storage.stored import ARCHIVE_CLASSES, ARCHIVED, StoredObject
from pipeline.texts import decode_text
from pipeline.urls import is_local

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
BATCH_ROWS = 8192
LINE_BYTES = 1 << 16
"""The number of bytes of a CSV's beginning that are looked at."""
CSV_NAMES = {
    "Bucket": "bucket", "Key": "key", "IsLatest": "is_latest", "IsDeleteMarker": "is_delete_marker", "Size": "size",
    "LastModifiedDate": "last_modified_date", "ETag": "e_tag", "StorageClass": "storage_class",
}  # fmt: skip
"""The fields as the manifest of a CSV inventory names them, with the names of the same columns in a Parquet inventory."""
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
BY_VALUE = (
    ("size", re.compile(r"\d{1,15}")),
    ("e_tag", re.compile(r"[0-9a-f]{32}(-\d+)?")),
    ("last_modified_date", re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")),
    ("storage_class", re.compile(r"STANDARD(_IA)?|ONEZONE_IA|INTELLIGENT_TIERING|REDUCED_REDUNDANCY|GLACIER(_IR)?|DEEP_ARCHIVE|EXPRESS_ONEZONE")),
)  # fmt: skip
"""The patterns by which the values of a CSV's first row reveal its fields, if there is no manifest.

The first two fields are always the bucket and the key.
"""

OF_VERSIONS = ("version_id", "is_latest", "is_delete_marker")
"""The fields after the key in an inventory of all versions."""
MAX_LOOKED_AT = 100
"""The most rows of a CSV from which its fields are told."""


@dataclass(frozen=True)
class Inventory:
    """The files of an inventory, all of one format."""

    bucket: str
    """The bucket that is listed."""
    files: tuple[str, ...]
    """The URLs of the files."""
    fields: tuple[str, ...]
    """The fields of a CSV's rows, by the names of a Parquet inventory."""

    def pages(self) -> Iterator[pa.Table]:
        """Yield the bucket's current objects, page by page, with the columns of `ENTRIES`.

        Raises:
            SettingError: a file is not what the manifest says.
            OSError: a file can't be read.
        """
        for file in self.files:
            try:
                for batch in self._batches(file):
                    yield to_table(found for row in batch.to_pylist() if (found := _object(row)))
            except (pa.ArrowException, KeyError, ValueError) as error:
                raise SettingError(f"S3 Inventory {file!r} can't be read: {reason(error)}") from error

    def _batches(self, file: str) -> Iterator[pa.RecordBatch]:
        fs, path = store.filesystem(file)
        if file.lower().endswith(".parquet"):
            with fs.open(path) as opened:
                parquet = pq.ParquetFile(opened)
                columns = [name for name in CSV_NAMES.values() if name in parquet.schema_arrow.names]
                yield from parquet.iter_batches(BATCH_ROWS, columns=columns)
            return
        wanted = [field for field in self.fields if field in CSV_NAMES.values()]
        with fs.open(path, compression="gzip" if file.lower().endswith(".gz") else None) as opened:
            batches = pa.csv.open_csv(
                opened,
                read_options=pa.csv.ReadOptions(column_names=self.fields),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted
                ),
            )
            for batch in batches:
                keys = pa.array([unquote_plus(key) for key in batch["key"].to_pylist()], pa.string())
                yield batch.set_column(batch.schema.names.index("key"), "key", keys)


def find_inventory(url: str) -> Inventory | None:
    """Return the inventory that a manifest.json describes, or that a CSV without a header is. Return None for any other file.

    Raises:
        SettingError: the inventory has a format that is not read.
        OSError: the file can't be read.
    """
    if url.rpartition("/")[2] == MANIFEST:
        try:
            found = json.loads(store.read(url))
        except ValueError:
            return None
        return _described(found, url) if isinstance(found, dict) and "sourceBucket" in found else None
    return _guessed(url) if url.lower().endswith((".csv", ".csv.gz")) else None


def _described(manifest: Mapping[str, Any], url: str) -> Inventory:
    try:
        kind, bucket = manifest["fileFormat"], manifest["sourceBucket"]
        keys = [file["key"] for file in manifest["files"]]
        target, schema = manifest["destinationBucket"].rpartition(":")[2], manifest["fileSchema"]
    except (KeyError, TypeError) as error:
        raise SettingError(f"S3 Inventory {url!r}: its manifest lacks {error}") from error
    if kind not in ("CSV", "Parquet"):
        raise SettingError(f"S3 Inventory {url!r} is written as {kind}; let S3 write CSV or Parquet")
    fields = [field.strip() for field in schema.split(",")] if kind == "CSV" else []
    if not re.search("e_?tag", schema, re.IGNORECASE):
        logger.warning(
            "%s: the inventory has no ETag; when objects change it is not noticed, so add this field to it", url
        )
    return Inventory(
        bucket,
        tuple(_file(url, target, key) for key in keys),
        tuple(CSV_NAMES.get(field, field) for field in fields),
    )


def _file(manifest: str, bucket: str, key: str) -> str:
    """Return the URL of an inventory's file, which is in its bucket, or next to a local copy of the manifest."""
    folder, name = manifest.rpartition("/")[0], key.rpartition("/")[2]
    if is_local(manifest):
        beside = (
            f"{folder}/{name}",
            f"{folder}/data/{name}",
            f"{folder.rpartition('/')[0]}/data/{name}",
            f"{folder}/{key}",
        )
        if found := next(filter(store.exists, beside), None):
            return found
    return f"s3://{bucket}/{key}"


def _guessed(url: str) -> Inventory | None:
    """Return the inventory in a CSV whose first row is no header, and begins with a bucket and a key. Else return None."""
    fs, path = store.filesystem(url)
    with fs.open(path, compression="gzip" if url.lower().endswith(".gz") else None) as opened:
        lines = opened.read(LINE_BYTES).split(b"\n")
    try:
        rows = list(csv.reader(decode_text(line) for line in (lines[:-1] or lines)[:MAX_LOOKED_AT]))
    except (UnicodeDecodeError, csv.Error):
        return None
    if not rows or not _fields(rows[0]):
        return None
    fullest = max(
        rows, key=lambda row: sum(value != "" for value in row)
    )  # an object that was deleted has no size and no ETag
    return Inventory(rows[0][0], (url,), _fields(fullest))


def _fields(values: Sequence[str]) -> tuple[str, ...]:
    """Return the fields of a row, as far as its values reveal them; none if the row is a header."""
    if len(values) < 3 or not BUCKET.fullmatch(values[0]):
        return ()
    fields = ["bucket", "key"]
    if len(values) > 4 and all(value in ("true", "false") for value in values[3:5]):
        fields += OF_VERSIONS
    for number, value in enumerate(values[len(fields) :]):
        names = [name for name, pattern in BY_VALUE if pattern.fullmatch(value) and name not in fields]
        fields.append(names[0] if names else f"other_{number}")
    return tuple(fields) if set(fields) & {*OF_VERSIONS, *(name for name, _ in BY_VALUE)} else ()


def _object(row: Mapping[str, Any]) -> StoredObject | None:
    """Return an object as it is now; None for an earlier version, for a deleted object, and for a key that stands for a folder."""
    if _is(row.get("is_delete_marker")) or ("is_latest" in row and not _is(row["is_latest"])):
        return None
    if row["key"].endswith("/"):
        return None
    modified, size = row.get("last_modified_date"), row.get("size")
    if isinstance(modified, str) and modified:
        modified = datetime.fromisoformat(modified)
    elif not isinstance(modified, datetime):
        modified = None
    if modified:
        modified = (
            (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
        )
    return StoredObject(
        f"s3://{row['bucket']}/{row['key']}",
        (row.get("e_tag") or "").strip('"'),
        int(size) if size not in (None, "") else None,
        modified,
        ARCHIVED if row.get("storage_class") in ARCHIVE_CLASSES else "",
    )


def _is(value: Any) -> bool:
    return value is True or str(value).lower() == "true"
