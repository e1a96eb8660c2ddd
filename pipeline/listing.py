"""What there is to detect: folders, prefixes, globs and manifests, written to one Parquet file."""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from pipeline import storage
from pipeline.errors import SettingError
from pipeline.storage import StoredObject

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
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


def list_inputs(inputs: Iterable[str], all_files: bool, path: Path) -> int:
    """Write the listing of all inputs, page by page.

    Args:
        inputs: folders, globs, prefixes, single images or manifests, by path or URL.
        all_files: take also names that no image has by its suffix.
        path: the Parquet file to write; columns as `LISTING`.

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
                    if taken:
                        writer.write_table(_to_table(taken))
            except (OSError, pa.ArrowException) as error:
                raise SettingError(f"input {given!r} can't be listed: {error or type(error).__name__}") from error
    if not num_listed:
        skipped = f"; {num_skipped} files with other suffixes are there (--all-files takes them)" if num_skipped else ""
        raise SettingError(f"input {', '.join(map(repr, inputs))}: no images{skipped}")
    return num_skipped


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
    rows = _read_manifest(url)
    if "uri" not in rows.column_names:
        raise SettingError(f"manifest {url!r} has the columns {rows.column_names}; it needs one named uri")
    folder = url.rpartition("/")[0]
    with ThreadPoolExecutor(NUM_STAT_THREADS) as threads:
        for batch in rows.to_batches(max_chunksize=storage.PAGE):
            yield list(threads.map(lambda row: _manifest_entry(row, folder), batch.to_pylist()))


def _read_manifest(url: str) -> pa.Table:
    fs, path = storage.filesystem(url)
    with fs.open(path, "rb") as file:
        if url.lower().endswith(".parquet"):
            return pq.read_table(file)
        if url.lower().endswith(".csv"):
            texts = {"uri": pa.string(), "etag": pa.string()}
            return pyarrow.csv.read_csv(file, convert_options=pyarrow.csv.ConvertOptions(column_types=texts))
        return pyarrow.json.read_json(file)


def _manifest_entry(row: dict[str, Any], folder: str) -> StoredObject:
    """A row as a stored object; relative names are looked for beside the manifest.

    An image that is not there keeps its row, with an empty etag: fetching it fails, and that is recorded.
    """
    uri = row["uri"]
    if not uri:
        raise SettingError(f"manifest in {folder!r} has a row without a uri")
    absolute = uri if "://" in uri or uri.startswith("/") else f"{folder}/{uri}"
    uri = absolute.removeprefix("file://") if absolute.startswith("file:///") else absolute
    if row.get("etag") and row.get("size_bytes") is not None:
        modified = row.get("last_modified")
        if isinstance(modified, str):
            modified = datetime.fromisoformat(modified)
        if modified is not None and modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        return StoredObject(uri, row["etag"].strip('"'), row["size_bytes"], modified)
    try:
        return storage.stat(uri)
    except OSError:
        return StoredObject(uri, "", None, None)
