"""The store for S3, which lists in ranges, and creates an object once.

This module is imported only when a URL needs it, because its import takes a quarter of a second.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.storage import create_once, s3, s3_listing
from pipeline.storage.entries import to_table
from pipeline.storage.fsspec_store import FsspecStore, as_os_error
from pipeline.storage.stored import StoredObject
from pipeline.urls import bucket_and_key


class ObjectStore(FsspecStore):
    """The objects of S3, by s3:// URL. The key is in the URL as it is, with nothing escaped."""

    def filesystem(self, url: str) -> tuple[Any, str]:
        """Return s3fs with this process's access, and the URL as the path in it."""
        return s3.filesystem(), url

    def _writable(self, url: str) -> tuple[Any, str]:
        return self.filesystem(url)  # there are no folders to make

    @as_os_error()
    def create(self, url: str, data: bytes) -> None:
        """Write an object that does not exist yet. If two writers do so, one of them fails."""
        create_once.create(*bucket_and_key(url), data)

    def walk(self, url: str) -> Iterator[list[StoredObject]]:
        """Yield the objects below a prefix in pages, or the one object with this key if there is no such prefix."""
        for page in self.walk_columns(url):
            yield [StoredObject(**row) for row in page.to_pylist()]

    def walk_columns(self, url: str) -> Iterator[pa.Table]:
        """Yield the same as tables."""
        bucket, key = bucket_and_key(url)
        prefix = key if not key or key.endswith("/") else f"{key}/"
        num_found = 0
        with as_os_error():
            for page in s3_listing.walk(bucket, prefix):
                entries = page.entries(bucket)
                num_found += entries.num_rows
                yield entries
        if not num_found and key and not key.endswith("/"):
            yield to_table([self.stat(url)])

    @as_os_error()
    def stat(self, url: str) -> StoredObject:
        """Return the entry of one object."""
        bucket, key = bucket_and_key(url)
        head = s3.filesystem().call_s3("head_object", Bucket=bucket, Key=key)
        return StoredObject(url, head["ETag"].strip('"'), head["ContentLength"], _to_second(head["LastModified"]))

    def check_creates_once(self, url: str) -> None:
        """Check by trying that if two writers create one object, one of them fails."""
        create_once.check_creates_once(*bucket_and_key(url))

    def table_options(self, url: str) -> dict[str, str]:
        """Return the options for the access to the bucket, and for the repetition of requests."""
        return s3.table_options(bucket_and_key(url)[0])

    def table_patience_s(self) -> float:
        """Return the seconds for which a request is repeated."""
        return s3.RETRY_S


def _to_second(time: datetime) -> datetime:
    """Drop the milliseconds of a time. Ceph has them in listings but not in its answer for one object, and AWS never has any."""
    return time.astimezone(UTC).replace(microsecond=0)
