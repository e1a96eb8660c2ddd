"""What there is to detect: folders, prefixes, globs and manifests, written to one Parquet file."""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from pipeline import storage
from pipeline.errors import SettingError, reason
from pipeline.storage import StoredObject

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
)  # fmt: skip
MANIFEST_SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson", ".json")
GLOB = re.compile(r"[*?\[]")
NUM_STAT_THREADS = 32

LISTING = pa.schema(
    [
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("last_modified", pa.timestamp("us", "UTC")),
    ]
)


def list_inputs(
    inputs: Iterable[str],
    all_files: bool,
    path: Path,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Write the listing of all inputs, page by page.

    Args:
        inputs: folders, globs, prefixes, single images or manifests, by path or URL.
        all_files: take also names that no image has by its suffix.
        path: the Parquet file to write; columns as `LISTING`.
        since, until: take only what was modified in between, the end left out, or at a time that is not known.

    Returns:
        How many names were skipped because their suffix is no image's.

    Raises:
        SettingError: an input is not there, may not be read, is no manifest, or all of them are empty.
    """
    num_listed = num_skipped = 0
    with pq.ParquetWriter(path, LISTING) as writer:
        for given in inputs:
            url = storage.absolute(given)
            is_manifest = url.lower().endswith(MANIFEST_SUFFIXES)
            try:
                for page in _manifest(url) if is_manifest else _walk(url):
                    taken = [e for e in page if is_manifest or all_files or _is_image(e.uri)]
                    num_skipped += len(page) - len(taken)
                    num_listed += len(taken)
                    taken = [e for e in taken if _is_between(e.last_modified, since, until)]
                    if taken:
                        writer.write_table(_to_table(taken))
            except (OSError, pa.ArrowException) as error:
                raise SettingError(f"input {given!r} can't be listed: {reason(error)}") from error
            except UnicodeEncodeError as error:
                raise SettingError(f"input {given!r}: the name {error.object!r} is not UTF-8; rename it") from error
    if not num_listed:
        skipped = f"; {num_skipped} files with other suffixes are there (--all-files takes them)" if num_skipped else ""
        raise SettingError(f"input {', '.join(map(repr, inputs))}: no images{skipped}")
    return num_skipped


def _is_between(time: datetime | None, since: datetime | None, until: datetime | None) -> bool:
    return time is None or ((since is None or since <= time) and (until is None or time < until))


def _is_image(uri: str) -> bool:
    return uri.lower().endswith(IMAGE_SUFFIXES)


def _to_table(entries: list[StoredObject]) -> pa.Table:
    return pa.Table.from_pylist([vars(e) for e in entries], schema=LISTING)


def _walk(url: str) -> Iterator[list[StoredObject]]:
    if not GLOB.search(url) or _is_there(url):
        yield from storage.walk(url)
        return
    folder = url[: GLOB.search(url).start()].rpartition("/")[0]  # type: ignore[union-attr]
    matches = re.compile(glob_translate(url)).match
    for page in storage.walk(f"{folder}/"):
        yield [e for e in page if matches(e.uri)]


def _is_there(url: str) -> bool:
    """Does something carry this very name, special characters and all?"""
    try:
        return any(storage.walk(url))
    except OSError:
        return False


def _manifest(url: str) -> Iterator[list[StoredObject]]:
    """The rows of a manifest; what it does not say of an image is asked for."""
    rows = read_manifest(url)
    folder = url.rpartition("/")[0]
    with ThreadPoolExecutor(NUM_STAT_THREADS) as threads:
        for batch in rows.to_batches(max_chunksize=storage.PAGE):
            typed = pa.Table.from_arrays([_column(batch, field, url) for field in LISTING], schema=LISTING)
            yield list(threads.map(lambda row: _manifest_entry(row, folder), typed.to_pylist()))


def read_manifest(url: str) -> pa.Table:
    """A manifest as it is; it has a column uri, of strings.

    Raises:
        SettingError: it has no such column.
        OSError, pa.ArrowException: it is not there, or can't be read.
    """
    rows = _read_columns(url)
    if "uri" not in rows.column_names:
        raise SettingError(f"manifest {url!r} has the columns {rows.column_names}; it needs one named uri")
    return rows


def _read_columns(url: str) -> pa.Table:
    content = pa.BufferReader(storage.read(url))
    texts = {"uri": pa.string(), "etag": pa.string()}  # however much they look like numbers or dates
    if url.lower().endswith(".parquet"):
        return pq.read_table(content)
    if url.lower().endswith(".csv"):
        return pyarrow.csv.read_csv(
            content,
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types=texts),
        )
    return pyarrow.json.read_json(
        content, parse_options=pyarrow.json.ParseOptions(explicit_schema=pa.schema(texts.items()))
    )


def _column(rows: pa.RecordBatch, field: pa.Field, url: str) -> pa.Array:
    """A manifest's column in the type of `LISTING`; nulls where it has none. Times without a zone are UTC."""
    if field.name not in rows.column_names:
        return pa.nulls(rows.num_rows, field.type)
    column = rows[field.name]
    is_time = pa.types.is_timestamp(field.type)
    try:
        if is_time and not pa.types.is_temporal(column.type):
            texts = column.cast(pa.string()).to_pylist()
            return pa.array([datetime.fromisoformat(text) if text else None for text in texts], field.type)
        return column.cast(field.type, safe=not is_time)  # nanoseconds are cut to microseconds
    except (ValueError, pa.ArrowException) as error:
        raise SettingError(f"manifest {url!r}, column {field.name}: {reason(error)}") from error


def _manifest_entry(row: dict[str, Any], folder: str) -> StoredObject:
    """A row as a stored object.

    An image that is not there keeps its row, with an empty etag: fetching it fails, and that is recorded.
    """
    uri = manifest_uri(row["uri"], folder)
    if row["etag"] and row["size_bytes"] is not None:
        return StoredObject(uri, row["etag"].strip('"'), row["size_bytes"], row["last_modified"])
    try:
        return storage.stat(uri)
    except OSError:
        return StoredObject(uri, "", None, None)


def manifest_uri(name: str | None, folder: str) -> str:
    """What a manifest's name means: relative names are looked for beside it.

    Raises:
        SettingError: there is none.
    """
    if not name:
        raise SettingError(f"manifest in {folder!r} has a row without a uri")
    is_relative = "://" not in name and not name.startswith("/")
    return storage.absolute(f"{folder}/{name}" if is_relative else name)
