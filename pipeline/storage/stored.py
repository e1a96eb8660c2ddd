"""One entry of a listing."""

from dataclasses import dataclass
from datetime import datetime

PAGE = 1000
"""The most entries in a page of a walk."""
ARCHIVE_CLASSES = ("GLACIER", "DEEP_ARCHIVE")
"""S3's storage classes that can't be read before somebody has restored the object, which takes hours."""
ARCHIVED = "they are archived in Glacier; restore them into another storage class"


@dataclass(frozen=True)
class StoredObject:
    """One file or object. `etag` names the version; for a local file it is `mtime_ns-size`.

    unusable: why it can't be taken for an image, or be listed at all; "" of all others.
    """

    uri: str
    etag: str
    size_bytes: int | None
    last_modified: datetime | None
    unusable: str = ""
