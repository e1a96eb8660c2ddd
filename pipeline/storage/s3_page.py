"""A page of ListObjectsV2 as columns.

botocore makes a tree and a dictionary per object. That takes ten times as long as the request, most of it in Python's collector of
garbage. So the usual form of an answer is taken apart by patterns, and botocore parses any other.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage.entries import ENTRIES
from pipeline.storage.stored import ARCHIVE_CLASSES, ARCHIVED

FACTS = ("ETag", "Size", "LastModified", "StorageClass")
FIELDS = {name: re.compile(f"<{name}>([^<]*)</{name}>") for name in ("Key", *FACTS)}
IS_TRUNCATED = re.compile("<IsTruncated>(true|false)</IsTruncated>")
TOKEN = re.compile("<NextContinuationToken>([^<]*)</NextContinuationToken>")


@dataclass(frozen=True)
class Page:
    """Objects in the order of their keys, and the text of each fact about them, which is empty where the store gives none."""

    keys: Sequence[str]
    facts: Mapping[str, Sequence[str]]
    is_truncated: bool
    """The store has more keys of the range."""
    token: str = ""
    """The store's own name for the place from which they go on."""

    def upto(self, key: str | None) -> "Page":
        """Return the objects up to and including a key. If there are others, no more keys follow. None leaves all."""
        end = len(self.keys) if key is None else bisect_right(self.keys, key)
        if end == len(self.keys):
            return self
        return Page(self.keys[:end], {name: texts[:end] for name, texts in self.facts.items()}, is_truncated=False)

    def entries(self, bucket: str) -> pa.Table:
        """Return the columns of `ENTRIES`. An empty object whose key ends with a slash marks a folder, and is left out.

        Raises:
            pyarrow.ArrowInvalid: a size is no number, or a time is no time.
        """
        keys, etags, sizes, times, classes = (
            pa.array(texts, pa.string()) for texts in (self.keys, *map(self.facts.__getitem__, FACTS))
        )
        is_archived = pc.is_in(classes, value_set=pa.array(ARCHIVE_CLASSES))
        columns = [
            pc.binary_join_element_wise(f"s3://{bucket}", keys, "/"),
            pc.utf8_trim(etags, '"'),
            sizes.cast(pa.int64()),
            # Ceph has milliseconds in listings but not in its answer for one object, and AWS never has any.
            pc.replace_substring_regex(times, r"\.\d+", "").cast(pa.timestamp("us", "UTC")),
            pc.if_else(is_archived, ARCHIVED, ""),
        ]
        is_folder = pc.and_(pc.ends_with(keys, "/"), pc.equal(columns[2], 0))
        return pa.Table.from_arrays(columns, schema=ENTRIES).filter(pc.invert(is_folder))


def parse(body: bytes) -> Page | None:
    """Return the page in an answer of the usual form. Return None for other XML, and for what is no XML.

    Keys are URL-encoded, as botocore asks for. Each object has one element per fact, but may be without a storage class.
    """
    text = body.decode(errors="replace").replace("&quot;", '"')
    is_whole = "<EncodingType>url</EncodingType>" in text and text.rstrip().endswith("</ListBucketResult>")
    is_truncated, token = IS_TRUNCATED.search(text), TOKEN.search(text)
    if not is_whole or not is_truncated or "&" in text or "<!" in text:
        return None
    num_objects = text.count("<Contents")
    columns = {name: pattern.findall(text) for name, pattern in FIELDS.items()}
    columns["StorageClass"] = columns["StorageClass"] or [""] * num_objects
    if any(len(column) != num_objects for column in columns.values()):
        return None
    keys = [unquote_plus(key) for key in columns.pop("Key")]
    return Page(keys, columns, is_truncated[1] == "true", token[1] if token else "")


def parse_early(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Parse an answer of the usual form, as botocore's event before-parse. The page is the answer's entry Page."""
    if response_dict["status_code"] == 200 and (page := parse(response_dict["body"])):
        customized_response_dict["Page"] = page
        response_dict["body"] = b""


def page_of(answer: dict[str, Any]) -> Page:
    """Return the page in an answer that botocore has parsed."""
    found = answer.get("Contents", [])
    facts = {name: [str(entry.get(name, "")) for entry in found] for name in FACTS}
    return Page(
        [entry["Key"] for entry in found], facts, answer["IsTruncated"], answer.get("NextContinuationToken", "")
    )
