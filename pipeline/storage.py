"""Bytes by URL: local paths, S3, and whatever fsspec knows.

A local file's URI is its absolute path; an object's is scheme://bucket/key with the key as it is, nothing escaped.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import obstore
import s3fs
from botocore.exceptions import BotoCoreError, ClientError
from obstore.store import S3Store

from pipeline.errors import SettingError

if TYPE_CHECKING:
    from obstore.store import RetryConfig

PAGE = 1000
RETRIES: "RetryConfig" = {
    "max_retries": 15,
    "retry_timeout": timedelta(seconds=180),
    "backoff": {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=10), "base": 2},
}
"""Shorter settings lost 63 of 64 objects in an outage of 10 s."""


class ChangedError(OSError):
    """The object is no longer the one that was listed."""


@dataclass(frozen=True)
class StoredObject:
    """One entry of a listing. `etag` names the version; for a local file it is `mtime_ns-size`."""

    uri: str
    etag: str
    size_bytes: int | None
    last_modified: datetime | None


def absolute(url: str) -> str:
    """One spelling a place: `file://` and relative paths become absolute paths, s3a is s3."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return os.path.abspath(url) + ("/" if url.endswith("/") and url != "/" else "")
    if scheme == "file":
        return absolute("/" + rest.lstrip("/"))
    return f"s3://{rest}" if scheme in ("s3a", "s3n") else url


def is_local(url: str) -> bool:
    """Is this a path of this machine's file system? Takes an absolute URL."""
    return "://" not in url


def is_s3(url: str) -> bool:
    """Is this an object of S3, or of a store that speaks it?"""
    return url.startswith("s3://")


def bucket_and_key(url: str) -> tuple[str, str]:
    """The two parts of an S3 URL; the key keeps any slashes of its own."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def s3_endpoint() -> str | None:
    """The S3 server that the environment names, None for AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def s3_filesystem() -> s3fs.S3FileSystem:
    """For listing and odd keys; credentials from botocore's provider chain. Each process makes its own."""
    return s3fs.S3FileSystem(
        use_listings_cache=False, config_kwargs={"retries": {"mode": "standard", "max_attempts": 10}}
    )


def table_storage_options(url: str) -> dict[str, str]:
    """What delta-rs needs beside AWS_ACCESS_KEY_ID and its kin, which it reads itself."""
    endpoint = s3_endpoint()
    if not is_s3(url) or not endpoint:
        return {}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        SettingError: fsspec knows no such scheme, or lacks the package for it.
    """
    if is_s3(url):
        return s3_filesystem(), url
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise SettingError(f"{url!r} can't be reached: {error}") from error
    return fs, path


@contextmanager
def _as_os_error() -> Iterator[None]:
    """No credentials, no such server: s3fs makes OSErrors only of what a server answers."""
    try:
        yield
    except BotoCoreError as error:
        raise OSError(str(error)) from error


@_as_os_error()
def read(url: str) -> bytes:
    """A whole small file."""
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path))


@_as_os_error()
def write(url: str, data: bytes) -> None:
    """A whole small file; its folder is made when there is none."""
    fs, path = _writable(url)
    fs.pipe_file(path, data)


@_as_os_error()
def put(local: Path, url: str) -> None:
    """A file of this machine, of any size, to a URL."""
    fs, path = _writable(url)
    fs.put_file(str(local), path)


def delete(url: str) -> None:
    """One file."""
    fs, path = filesystem(url)
    fs.rm_file(path)


def _writable(url: str) -> tuple[Any, str]:
    """A URL's file system and path, with the folder above made where folders exist: S3 has none."""
    fs, path = filesystem(url)
    if not is_s3(url):
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    return fs, path


# ---- listing


def walk(url: str) -> Iterator[list[StoredObject]]:
    """All files below a folder or prefix, or the one file, page by page in no set order.

    Raises:
        FileNotFoundError, PermissionError: no such folder or bucket, or it may not be listed.
    """
    if is_local(url):
        return _walk_local(url)
    return _walk_s3(url) if is_s3(url) else _walk_fsspec(url)


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
    bucket, key = bucket_and_key(url)
    head = s3_filesystem().call_s3("head_object", Bucket=bucket, Key=key)
    return StoredObject(url, head["ETag"].strip('"'), head["ContentLength"], head["LastModified"])


def _walk_local(url: str) -> Iterator[list[StoredObject]]:
    if not os.path.isdir(url):
        yield [stat(url)]
        return
    page = []
    for folder, _, names in os.walk(url, onerror=_raise):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                page.append(_local_object(path, os.stat(path)))
            if len(page) == PAGE:
                yield page
                page = []
    yield page


def _raise(error: OSError) -> None:
    """os.walk by itself passes in silence over a folder that it may not read."""
    raise error


def _local_object(path: str, status: os.stat_result) -> StoredObject:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredObject(path, local_etag(status), status.st_size, modified)


def local_etag(status: os.stat_result) -> str:
    """What stands for a version of a local file."""
    return f"{status.st_mtime_ns}-{status.st_size}"


def _walk_s3(url: str) -> Iterator[list[StoredObject]]:
    bucket, key = bucket_and_key(url)
    prefix = key if not key or key.endswith("/") else f"{key}/"
    fs, request, found = s3_filesystem(), {"Bucket": bucket, "Prefix": prefix, "MaxKeys": PAGE}, False
    while True:
        with _as_os_error():
            answer = fs.call_s3("list_objects_v2", **request)
        entries = [e for e in answer.get("Contents", []) if not (e["Key"].endswith("/") and e["Size"] == 0)]
        found = found or bool(entries)
        yield [
            StoredObject(f"s3://{bucket}/{e['Key']}", e["ETag"].strip('"'), e["Size"], e["LastModified"])
            for e in entries
        ]
        if not answer.get("IsTruncated"):
            break
        request["ContinuationToken"] = answer["NextContinuationToken"]
    if not found and key and not key.endswith("/"):
        yield [stat(url)]


def _walk_fsspec(url: str) -> Iterator[list[StoredObject]]:
    fs, path = filesystem(url)
    entries = fs.find(path, detail=True)
    if not entries:
        raise FileNotFoundError(f"{url}: nothing is there")
    scheme = url.partition("://")[0]
    yield [_fsspec_object(fs, f"{scheme}://{name.lstrip('/')}", info) for name, info in entries.items()]


def _fsspec_object(fs: Any, uri: str, info: dict[str, Any]) -> StoredObject:
    etag = info.get("ETag") or info.get("etag") or fs.ukey(info["name"])
    modified = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(modified, (int, float)):
        modified = datetime.fromtimestamp(modified, UTC)
    return StoredObject(
        uri, str(etag).strip('"'), info["size"] or 0, modified if isinstance(modified, datetime) else None
    )


# ---- reading what was listed

ODD_KEY = re.compile(r"^/|//|(^|/)\.{1,2}(/|$)|[\x00-\x1f\x7f]|/$")
"""Keys that obstore refuses, or worse, reads as another object's: they go through s3fs."""


def read_version(uri: str, etag: str, size_bytes: int | None) -> bytes:
    """The content of exactly the version that was listed; an empty etag takes any.

    Raises:
        ChangedError: it is another version now, or its length is not the one listed.
        Exception: whatever the store raises, after its retries.
    """
    if is_local(uri):
        data = _read_local(uri, etag)
    elif is_s3(uri):
        data = _read_s3(uri, etag)
    else:
        fs, path = filesystem(uri)
        data = bytes(fs.cat_file(path))
    if size_bytes is not None and len(data) != size_bytes:
        raise ChangedError(f"{len(data)} bytes were read where {size_bytes} were listed")
    return data


def _read_local(path: str, etag: str) -> bytes:
    with open(path, "rb") as file:
        found = local_etag(os.fstat(file.fileno()))
        if etag and found != etag:
            raise ChangedError(f"the file has changed since it was listed ({etag} then, {found} now)")
        return file.read()


def _read_s3(uri: str, etag: str) -> bytes:
    bucket, key = bucket_and_key(uri)
    if ODD_KEY.search(key):
        return _read_odd_key(bucket, key, etag)
    options: Any = {"if_match": f'"{etag}"'} if etag else {}
    try:
        return bytes(obstore.get(_s3_store(bucket), key, options=options).bytes())
    except obstore.exceptions.PreconditionError as error:
        raise ChangedError("the object has changed since it was listed") from error


def _read_odd_key(bucket: str, key: str, etag: str) -> bytes:
    fs = s3_filesystem()

    async def get() -> bytes:
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, **condition)
        async with answer["Body"] as body:
            return bytes(await body.read())

    try:
        return bytes(fsspec.asyn.sync(fs.loop, get))
    except OSError as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and cause.response["Error"]["Code"] in ("412", "PreconditionFailed"):
            raise ChangedError("the object has changed since it was listed") from error
        raise


@cache
def _s3_store(bucket: str) -> S3Store:
    endpoint = s3_endpoint()
    if endpoint is None:
        return S3Store(bucket, retry_config=RETRIES)
    return S3Store(
        bucket,
        retry_config=RETRIES,
        endpoint=endpoint,
        virtual_hosted_style_request=False,
        client_options={"allow_http": endpoint.startswith("http://")},
    )
