"""Bytes by URL: local paths, S3, and whatever fsspec knows.

A local file's URI is its absolute path; an object's is scheme://bucket/key with the key as it is, nothing escaped. What speaks to
S3 takes a quarter of a second to import, and is imported where an URL needs it.
"""

import logging
import os
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec

from pipeline.errors import SettingError, is_outage, reason
from pipeline.redaction import redacted
from pipeline.urls import bucket_and_key, is_local, is_s3

logger = logging.getLogger(__name__)

PAGE = 1000
NUM_STAT_THREADS = 32
ARCHIVE_CLASSES = ("GLACIER", "DEEP_ARCHIVE")
"""Of S3: what can't be read before somebody has restored it, which takes hours."""
ARCHIVED = "they are archived in Glacier; restore them into another storage class"
ARCHIVES = re.compile(r"^(zip|tar|libarchive|rar|7z|asar|squashfs)://|::")
"""URLs of files within a file."""


@dataclass(frozen=True)
class StoredObject:
    """One entry of a listing. `etag` names the version; for a local file it is `mtime_ns-size`.

    unusable: why it can't be taken for an image, or be listed at all; "" of all others.
    """

    uri: str
    etag: str
    size_bytes: int | None
    last_modified: datetime | None
    unusable: str = ""


def table_options(url: str) -> dict[str, str]:
    """What delta-rs is told beside a table's URL; another answer than before means new credentials."""
    if not is_s3(url):
        return {}
    from pipeline.storage import s3

    return s3.table_options(bucket_and_key(url)[0])


def table_patience_s(url: str) -> float:
    """How long delta-rs may repeat a request to a table's store."""
    if not is_s3(url):
        return 0
    from pipeline.storage import s3

    return s3.RETRY_S


def check_creates_once(url: str) -> None:
    """Make sure that of two who create one file below a folder, one fails; local disks are taken to do so."""
    if is_s3(url):
        from pipeline.storage import create_once

        create_once.check_creates_once(*bucket_and_key(url))


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        SettingError: fsspec knows no such scheme, or lacks the package for it.
    """
    if is_s3(url):
        from pipeline.storage import s3

        return s3.filesystem(), url
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise SettingError(f"{url!r} can't be reached: {error}") from error
    return fs, path


@contextmanager
def _as_os_error() -> Iterator[None]:
    """No such server, or an answer of HTTP's: fsspec's file systems do not make OSErrors of all."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError

        if isinstance(error, BotoCoreError | ClientError):
            raise OSError(reason(error)) from error
        raise


@_as_os_error()
def read(url: str) -> bytes:
    """A whole small file."""
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path))


@_as_os_error()
def write(url: str, data: bytes) -> None:
    """A whole small file; its folder is made when there is none. Readers see all of it, or what was there before."""
    fs, path = _writable(url)
    if not is_local(url):
        fs.pipe_file(path, data)
        return
    beside = f"{path}.{uuid.uuid4().hex}"
    fs.pipe_file(beside, data)
    os.replace(beside, path)


@_as_os_error()
def create(url: str, data: bytes) -> None:
    """As `write`, of a file that is not there yet; of two who create one at once, on a disk or on S3, one fails.

    Raises:
        FileExistsError: it is there.
    """
    if is_s3(url):
        from pipeline.storage import create_once

        create_once.create(*bucket_and_key(url), data)
        return
    fs, path = _writable(url)
    if not is_local(url):
        if fs.exists(path):
            raise FileExistsError(f"{url} is there already")
        fs.pipe_file(path, data)
        return
    beside = f"{path}.{uuid.uuid4().hex}"
    fs.pipe_file(beside, data)
    try:
        os.link(beside, path)
    finally:
        os.unlink(beside)


@_as_os_error()
def put(local: Path, url: str) -> None:
    """A file of this machine, of any size, to a URL."""
    fs, path = _writable(url)
    fs.put_file(str(local), path)


def delete(url: str) -> None:
    """One file."""
    fs, path = filesystem(url)
    fs.rm_file(path)


@_as_os_error()
def exists(url: str) -> bool:
    """Is there a file, or a folder with something in it?"""
    fs, path = filesystem(url)
    return bool(fs.exists(path))


@_as_os_error()
def names(url: str) -> set[str]:
    """What lies in a folder, by its last name."""
    fs, path = filesystem(url)
    return {entry["name"].rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=True)}


def _writable(url: str) -> tuple[Any, str]:
    """A URL's file system and path, with the folder above made where folders exist: S3 has none."""
    fs, path = filesystem(url)
    if not is_s3(url):
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    return fs, path


def walk(url: str) -> Iterator[list[StoredObject]]:
    """All files below a folder or prefix, or the one file, page by page in no set order.

    Raises:
        FileNotFoundError, PermissionError: no such folder or bucket, or it may not be listed.
    """
    if is_local(url):
        return _walk_local(url)
    if is_s3(url):
        return _walk_s3(url)
    if ARCHIVES.search(url):
        raise SettingError(f"{redacted(url)!r}: files within an archive are not read; unpack it, and name the folder")
    return _walk_fsspec(url)


@_as_os_error()
def stat(url: str) -> StoredObject:
    """One file or object.

    Raises:
        OSError: it is not there, or may not be read.
    """
    if is_local(url):
        return _local_object(url, os.stat(url))
    if not is_s3(url):
        fs, path = filesystem(url)
        return _fsspec_object(fs, url, fs.info(path))
    from pipeline.storage import s3

    bucket, key = bucket_and_key(url)
    head = s3.filesystem().call_s3("head_object", Bucket=bucket, Key=key)
    return StoredObject(url, head["ETag"].strip('"'), head["ContentLength"], _to_second(head["LastModified"]))


def _to_second(time: datetime) -> datetime:
    """Ceph lists milliseconds, and answers seconds when asked for one object; AWS always seconds."""
    return time.astimezone(UTC).replace(microsecond=0)


def _walk_local(url: str) -> Iterator[list[StoredObject]]:
    if not os.path.isdir(url):
        yield [stat(url)]
        return
    os.scandir(url).close()  # raises where it may not be listed
    entries = _local_files(url, (os.path.realpath(url),))
    while page := list(islice(entries, PAGE)):
        yield page


def _local_files(folder: str, roots: tuple[str, ...]) -> Iterator[StoredObject]:
    """All files below a folder; links to folders are followed, but for those to what is walked anyway.

    Args:
        folder: it is there.
        roots: where the walks that led here began, without links.
    """
    unlisted: list[OSError] = []
    for above, folders, files in os.walk(folder, onerror=unlisted.append):
        for name in files:
            path = os.path.join(above, name)
            if not _is_utf_8(path):
                yield StoredObject(path, "", None, None, unusable="their names are not UTF-8; rename them")
                continue
            with suppress(FileNotFoundError):  # It may vanish between the two looks; so may what a link names.
                if os.path.isfile(path):
                    yield _local_object(path, os.stat(path))
        for name in folders:
            path = os.path.join(above, name)
            if os.path.islink(path):
                target = os.path.realpath(path)
                if not any(_is_in(target, root) or _is_in(root, target) for root in roots):
                    yield from _local_files(path, (*roots, target))
    for error in unlisted:
        why = f"folders that can't be listed ({error.strerror})"
        yield StoredObject(str(error.filename), "", None, None, unusable=why)


def _is_utf_8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _local_object(path: str, status: os.stat_result) -> StoredObject:
    try:
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError):  # after the year 9999: a time that is not known
        modified = None
    return StoredObject(path, local_etag(status), status.st_size, modified)


def local_etag(status: os.stat_result) -> str:
    """What stands for a version of a local file."""
    return f"{status.st_mtime_ns}-{status.st_size}"


def _walk_s3(url: str) -> Iterator[list[StoredObject]]:
    from pipeline.storage import s3_listing

    bucket, key = bucket_and_key(url)
    prefix = key if not key or key.endswith("/") else f"{key}/"
    found = False
    with _as_os_error():
        for page in s3_listing.walk(bucket, prefix):
            entries = [entry for entry in page if not (entry["Key"].endswith("/") and entry["Size"] == 0)]
            found = found or bool(entries)
            yield [
                StoredObject(
                    f"s3://{bucket}/{entry['Key']}",
                    entry["ETag"].strip('"'),
                    entry["Size"],
                    _to_second(entry["LastModified"]),
                    ARCHIVED if entry.get("StorageClass") in ARCHIVE_CLASSES else "",
                )
                for entry in entries
            ]
    if not found and key and not key.endswith("/"):
        yield [stat(url)]


@_as_os_error()
def _raise_outage(fs: Any, path: str) -> None:
    """Where a server does not answer, say so; fsspec takes that for a file that is not there."""
    try:
        fs.info(path)
    except FileNotFoundError as error:
        if error.__cause__ and is_outage(error):
            raise error.__cause__ from None


def _walk_fsspec(url: str) -> Iterator[list[StoredObject]]:
    fs, path = filesystem(url)
    with _as_os_error():
        found = fs.find(path, detail=True)
    if not found:
        if _is_http(url):
            _raise_outage(fs, path)
        raise FileNotFoundError(f"{url}: nothing is there")
    if list(found.values()) == [{}]:  # of HTTP: one file
        entries = [stat(url)]
    elif _is_http(url):  # whose listings are links alone
        with ThreadPoolExecutor(NUM_STAT_THREADS) as threads:
            entries = list(threads.map(stat, found))
    else:
        # fsspec's paths have lost the host, or the scheme alone.
        above = url.rstrip("/").removesuffix(path.rstrip("/"))
        entries = [_fsspec_object(fs, above + name, info) for name, info in found.items()]
    if unknown := sum(not entry.etag for entry in entries):
        logger.warning(
            "%s: %s files have neither an ETag nor a time; when they change it is not noticed",
            redacted(url),
            f"{unknown:,}",
        )
    yield entries


def _fsspec_object(fs: Any, uri: str, info: dict[str, Any]) -> StoredObject:
    """Its version is what its store says of it; an empty one where it says nothing that changes."""
    modified = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(modified, (int, float)):
        modified = datetime.fromtimestamp(modified, UTC)
    if _is_http(uri) and (told := info.get("Last-Modified")):
        modified = parsedate_to_datetime(told)
    etag = info.get("ETag") or info.get("etag")
    if not etag and not _is_http(uri):
        etag = fs.ukey(info["name"])
    elif not etag:
        etag = f"{modified:%Y%m%dT%H%M%SZ}-{info['size']}" if modified else ""
    return StoredObject(uri, str(etag).strip('"'), info["size"], modified if isinstance(modified, datetime) else None)


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))
