"""The entries of a listing as columns. This module is apart from `stored`, so that commands which list nothing don't import pyarrow."""

from collections.abc import Iterable

import pyarrow as pa

from pipeline.storage.stored import StoredObject

ENTRIES = pa.schema(
    [
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("last_modified", pa.timestamp("us", "UTC")),
        ("unusable", pa.string()),
    ]
)
"""The fields of `StoredObject` as columns."""


def to_table(objects: Iterable[StoredObject]) -> pa.Table:
    """Return entries as a table with the columns of `ENTRIES`."""
    return pa.Table.from_pylist([vars(entry) for entry in objects], schema=ENTRIES)
