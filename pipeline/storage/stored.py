"""The entry of a listing."""

from dataclasses import dataclass
from datetime import datetime

PAGE = 1000
"""The most entries in a page of a walk."""
ARCHIVE_CLASSES = ("GLACIER", "DEEP_ARCHIVE")
"""The storage classes of S3 that can't be read before somebody has restored the object, which takes hours."""
ARCHIVED = "they are archived in Glacier; restore them into another storage class"


@dataclass(frozen=True)
class StoredObject:
    """A file or an object."""

    uri: str
    etag: str
    """The name of the version; for a local file, it is `mtime_ns-size`."""
    size_bytes: int | None
    last_modified: datetime | None
    unusable: str = ""
    """The reason why it can't be used as an image, or be listed at all; empty for all others."""
