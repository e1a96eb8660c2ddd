"""List all objects below a prefix of S3, page by page, many ranges of keys at once.

S3 lists in the order of keys, and only one page after the other. So the rest of a range is cut at the folders that follow, and
each part is listed by itself. Whenever parts are done, others are cut again. A folder without folders can't be cut.
"""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from pipeline.storage import s3

PAGE = 1000
NUM_RANGES = 16

Entry = dict[str, Any]
"""An object as ListObjectsV2 reports it: Key, ETag, Size, LastModified."""


@dataclass(frozen=True)
class Range:
    """The keys of a prefix that come after `after`, up to and including `upto`. If `upto` is None, the range has no end."""

    bucket: str
    prefix: str
    after: str = ""
    upto: str | None = None
    is_flat: bool = False
    """The range has no folder left to cut it at."""

    def has(self, key: str) -> bool:
        """Is a key no later than the end of the range?"""
        return self.upto is None or key <= self.upto


def walk(bucket: str, prefix: str) -> Iterator[list[Entry]]:
    """Yield each object below a prefix once, in pages, in no set order.

    Raises:
        OSError, botocore.exceptions.BotoCoreError: the request failed in s3fs.
    """
    with ThreadPoolExecutor(NUM_RANGES, thread_name_prefix="list") as threads:
        pending = {threads.submit(_page, Range(bucket, prefix))}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                entries, left = future.result()
                yield entries
                if left:
                    pending |= _continue(threads, left, NUM_RANGES - len(pending))


def _continue(threads: ThreadPoolExecutor, left: Range, num_free: int) -> set[Future[tuple[list[Entry], Range | None]]]:
    """List the rest of a range, in as many parts as there are free threads."""
    parts = [left] if left.is_flat or num_free < 2 else cut(left, num_free)
    return {threads.submit(_page, part) for part in parts}


def _page(keys: Range) -> tuple[list[Entry], Range | None]:
    """Return the first page of a range, and the rest of the range, or None at its end."""
    answer = _list(keys.bucket, keys.prefix, keys.after)
    entries = [entry for entry in answer.get("Contents", []) if keys.has(entry["Key"])]
    is_done = not answer["IsTruncated"] or len(entries) < len(answer["Contents"])
    return entries, None if is_done else replace(keys, after=entries[-1]["Key"])


def cut(keys: Range, num_parts: int) -> list[Range]:
    """Return the same keys as several ranges. Each one but the first begins with a folder, one of the highest that there are."""
    folder = keys.prefix
    while True:
        answer = _list(keys.bucket, folder, keys.after, Delimiter="/")
        found = [common["Prefix"] for common in answer.get("CommonPrefixes", [])]
        starts = [start for start in found if start > keys.after and keys.has(start)]
        if starts:
            chosen = starts[:: -(-len(starts) // (num_parts - 1))]
            bounds = [keys.after, *chosen, keys.upto]
            return [replace(keys, after=after, upto=upto) for after, upto in pairwise(bounds)]
        inner, slash, _ = keys.after[len(folder) :].partition("/")
        if not slash or not keys.after.startswith(folder):
            return [replace(keys, is_flat=True)]
        folder += inner + slash


def _list(bucket: str, prefix: str, after: str, **more: str) -> dict[str, Any]:
    request = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": PAGE} | more
    if after:
        request["StartAfter"] = after
    answer: dict[str, Any] = s3.filesystem().call_s3("list_objects_v2", **request)
    return answer
