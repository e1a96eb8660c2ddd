"""Read manifests in batches: tables of images as Parquet, CSV, JSON or a list of names."""

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipeline.errors import SettingError, is_outage, reason
from pipeline.redaction import has_secret, redacted
from pipeline.storage import store
from pipeline.storage.entries import ENTRIES
from pipeline.storage.fsspec_store import NUM_STAT_THREADS
from pipeline.storage.stored import StoredObject
from pipeline.urls import absolute

TEXT_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json", ".txt")
SUFFIXES = (".parquet", *TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES))
BATCH_ROWS = 65_536
TEXTS = {name: pa.string() for name in ("uri", "etag", "last_modified")}
"""The columns that are read as text, however much their values look like numbers or dates."""
CSV = pa.csv.ParseOptions(newlines_in_values=True)
INVENTORY_HINT = " (an S3 Inventory is named by its manifest.json)"
HEAD_BYTES = 64
"""The number of bytes at the beginning of a text that are looked at."""
ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", b"": "utf-8"}
"""The encodings of texts, by the byte order mark that a text begins with."""

LISTING = ENTRIES.remove(ENTRIES.get_field_index("unusable"))
"""The columns of a listing, with one row per listed image."""
PLAIN_PATH, DOTS = r"^(/[^/]+)+$", r"/\.{1,2}(/|$)"
"""The patterns of a local path without doubled slashes, and of the dots that `urls.absolute` would also resolve in it."""
HERE = re.compile(r"^(\./+)+")
SUSPECT = r"(?i)://[^/]*(:[^@]*)?@|[?&;][^/]*(pass|pwd|secret|token|sig|credential|key)"
"""A pattern of the URIs that may hold a secret, so that only a few of millions are looked at closely."""


def is_manifest(url: str) -> bool:
    """Is this a manifest, judging by its name?"""
    return url.lower().endswith(SUFFIXES)


def read_manifest(url: str) -> Iterator[pa.Table]:
    """Yield the rows of a manifest, batch by batch, with the columns of `LISTING`.

    The store is asked for facts about an image that the manifest does not state. Relative names are relative to the manifest's
    folder. An image that does not exist keeps its row, with an empty etag. Fetching it fails, and that failure is recorded.

    Raises:
        SettingError: the manifest has no column uri, a row without a uri or with a secret in it, or a value of another type;
            or it is no text.
        OSError, pyarrow.ArrowException: the manifest can't be read.
    """
    folder = url.rpartition("/")[0]
    with ThreadPoolExecutor(NUM_STAT_THREADS) as threads:
        for batch in _batches(url):
            rows = pa.Table.from_arrays([_column(batch, field, url) for field in LISTING], schema=LISTING)
            _check_named(rows["uri"], url)
            _check_no_secret(rows["uri"], url)
            if pc.all(_is_whole(rows), min_count=0).as_py():
                yield rows.set_column(1, "etag", pc.utf8_trim(rows["etag"], '"'))
                continue
            yield pa.Table.from_pylist(list(map(vars, _looked_up(rows, folder, threads))), schema=LISTING)


def read_uris(url: str) -> list[str]:
    """Return the images that a manifest names, whether they exist or not; raises as `read_manifest`."""
    folder = url.rpartition("/")[0]
    columns = [_column(batch, LISTING.field("uri"), url) for batch in _batches(url)]
    for column in columns:
        _check_named(column, url)
    return [_absolute(name, folder) for column in columns for name in column.to_pylist()]


def _check_named(uris: pa.Array | pa.ChunkedArray, url: str) -> None:
    if uris.null_count or pc.any(pc.equal(uris, "")).as_py():
        raise SettingError(f"manifest {url!r} has a row without a uri")


def _check_no_secret(uris: pa.ChunkedArray, url: str) -> None:
    suspects = uris.filter(pc.match_substring_regex(uris, SUSPECT)).to_pylist()
    if found := next(filter(has_secret, suspects), None):
        raise SettingError(
            f"manifest {url!r}: the uri {redacted(found)!r} has a password, a token or a signature, and the table would hold it; "
            "name images by URLs without, and let the environment have it"
        )


def _absolute(name: str, folder: str) -> str:
    """Return the absolute URI of a name that may be relative to its manifest's folder."""
    is_relative = "://" not in name and not name.startswith("/")
    return absolute(f"{folder}/{HERE.sub('', name)}" if is_relative else name)


def _batches(url: str) -> Iterator[pa.RecordBatch]:
    suffix = url.lower().removesuffix(".gz").rpartition(".")[2]
    if suffix == "parquet":
        with _opened(url) as file:
            parquet = pq.ParquetFile(file)
            yield from parquet.iter_batches(BATCH_ROWS, columns=_known(parquet.schema_arrow, url))
        return
    with _opened(url) as file:
        head = file.read(HEAD_BYTES)
    mark = next((mark for mark in ENCODINGS if head.startswith(mark)), b"")
    if suffix == "csv":
        yield from _csv_batches(url, ENCODINGS[mark])
    elif suffix == "txt":
        with _opened(url) as file, io.TextIOWrapper(file, ENCODINGS[mark]) as lines:
            names = (line.strip() for line in lines)
            yield from _of_rows({"uri": name} for name in names if name)
    elif mark.startswith((b"\xff", b"\xfe")) or head.removeprefix(mark).lstrip().startswith(b"["):
        with _opened(url) as file:
            yield from _of_rows(_entries(file.read().decode(ENCODINGS[mark]), url))
    else:
        fields = [(name, TEXTS.get(name, type_)) for name, type_ in zip(LISTING.names, LISTING.types, strict=True)]
        options = pa.json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
        with _opened(url) as file:
            file.read(len(mark))
            yield from pa.json.open_json(file, parse_options=options)


def _opened(url: str) -> Any:
    fs, path = store.filesystem(url)
    return fs.open(path, compression="gzip" if url.lower().endswith(".gz") else None)


def _csv_batches(url: str, encoding: str) -> Iterator[pa.RecordBatch]:
    reading = pa.csv.ReadOptions(encoding=encoding)
    # pyarrow reads ahead in a thread, even once it is closed: the file is this reader's alone.
    with _opened(url) as file, pa.csv.open_csv(file, reading, parse_options=CSV) as header:
        known = _known(header.schema, url)
    options = pa.csv.ConvertOptions(column_types=TEXTS, include_columns=known)
    with _opened(url) as file:
        yield from pa.csv.open_csv(file, reading, parse_options=CSV, convert_options=options)


def _entries(text: str, url: str) -> list[dict[str, Any]]:
    """Return the entries of a JSON array, or of JSON lines, which are names or objects."""
    found = json.loads(text) if text.lstrip().startswith("[") else map(json.loads, text.splitlines())
    entries = [{"uri": entry} if isinstance(entry, str) else entry for entry in found]
    if wrong := next((entry for entry in entries if not isinstance(entry, dict)), None):
        raise SettingError(f"manifest {url!r} has the entry {wrong!r}; give names, or objects with a uri")
    return entries


def _of_rows(rows: Iterable[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([(name, pa.string()) for name in LISTING.names])
    kept = ({name: str(row[name]) for name in LISTING.names if row.get(name) is not None} for row in rows)
    while taken := list(islice(kept, BATCH_ROWS)):
        yield from pa.Table.from_pylist(taken, schema=schema).to_batches()


def _known(schema: pa.Schema, url: str) -> list[str]:
    """Return the columns of `LISTING` that the manifest has."""
    if "uri" not in schema.names:
        raise SettingError(f"manifest {url!r} has the columns {schema.names}; it needs one named uri{INVENTORY_HINT}")
    return [name for name in LISTING.names if name in schema.names]


def _column(rows: pa.RecordBatch, field: pa.Field, url: str) -> pa.Array:
    """Return a manifest's column in the type of `LISTING`; nulls if the manifest lacks it. Times without a zone are UTC."""
    if field.name not in rows.schema.names:
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


def _is_whole(rows: pa.Table) -> pa.ChunkedArray:
    """Return which rows need no request to the store: those with an absolute URI, an etag and a size."""
    uris = rows["uri"]
    has_dots = pc.match_substring_regex(uris, DOTS)
    is_path = pc.and_(pc.match_substring_regex(uris, PLAIN_PATH), pc.invert(has_dots))
    has_version = pc.and_(pc.fill_null(pc.not_equal(rows["etag"], ""), False), pc.is_valid(rows["size_bytes"]))
    return pc.and_(pc.or_(pc.starts_with(uris, "s3://"), is_path), has_version)


def _looked_up(rows: pa.Table, folder: str, threads: ThreadPoolExecutor) -> list[StoredObject]:
    """Return the entries of images. Of an image that can't be looked up, the etag is empty.

    Raises:
        OSError: most can't be for a reason that may pass. All of them would get a version that is not theirs.
    """
    unanswered: list[OSError] = []
    entries = list(threads.map(lambda row: _entry(row, folder, unanswered), rows.to_pylist()))
    if 2 * len(unanswered) > len(entries):
        raise unanswered[0]
    return entries


def _entry(row: dict[str, Any], folder: str, unanswered: list[OSError]) -> StoredObject:
    """Return an image's entry, without a version if it can't be looked up; add the error to a list if that may pass."""
    uri = _absolute(row["uri"], folder)
    if row["etag"] and row["size_bytes"] is not None:
        return StoredObject(uri, row["etag"].strip('"'), row["size_bytes"], row["last_modified"])
    try:
        return store.stat(uri)
    except OSError as error:
        if is_outage(error) or not isinstance(error, FileNotFoundError | PermissionError):
            unanswered.append(error)
        return StoredObject(uri, "", None, None)
