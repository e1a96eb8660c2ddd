from datetime import UTC, datetime

import pyarrow as pa
import pytest

from pipeline.storage.entries import ENTRIES
from pipeline.storage.s3_page import Page, page_of, parse
from pipeline.storage.stored import ARCHIVED

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
TRUNCATED = "<IsTruncated>true</IsTruncated>"
TIME = "2026-01-02T03:04:05.678Z"


def body(*objects: str, more: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    contents = "".join(f"<Contents>{found}</Contents>" for found in objects)
    return f"{HEAD}<EncodingType>url</EncodingType>{more}{contents}</ListBucketResult>\n".encode()


def an_object(key: str, size: object = 5, time: str = TIME, more: str = "") -> str:
    etag = "<ETag>&quot;0123&quot;</ETag>"
    return f"<Key>{key}</Key><LastModified>{time}</LastModified>{etag}<Size>{size}</Size>{more}"


def page(*objects: str, more: str = "<IsTruncated>false</IsTruncated>") -> Page:
    found = parse(body(*objects, more=more))
    assert found
    return found


def test_entries_of_a_page():
    owner = "<Owner><ID>1</ID><DisplayName>Key</DisplayName></Owner>"
    found = page(an_object("a.jpg"), an_object("b.jpg", more=owner), more=TRUNCATED)
    assert (found.keys, found.is_truncated) == (["a.jpg", "b.jpg"], True)
    entries = found.entries("bucket")
    assert entries.schema == ENTRIES
    time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert [tuple(row.values()) for row in entries.to_pylist()] == [
        (f"s3://bucket/{key}", "0123", 5, time, "") for key in ("a.jpg", "b.jpg")
    ]


def test_keys_are_decoded():
    assert page(an_object("a+b%2Bc%01%C3%A9%26%3CKey%3E.jpg")).keys == ["a b+c\x01é&<Key>.jpg"]


@pytest.mark.parametrize(
    "unusual",
    [
        body().replace(b"url", b"none"), body(an_object("a&amp;b")), body(an_object("<![CDATA[a]]>")), body(more=f"{TRUNCATED}<!-- a -->"),
        body(more="<IsTruncated> true </IsTruncated>"), body(an_object("a")).replace(b"<Key>", b"<s3:Key>"),
        body(an_object("a"), an_object("b").replace("<Size>5</Size>", "")), body(an_object("a"))[:-10], b"", b"\xff",
        body(an_object("a"), an_object("b", more="<StorageClass>GLACIER</StorageClass>")), body(an_object("a") + "<Key>b</Key>"),
    ],
)  # fmt: skip
def test_an_unusual_form_is_left_to_botocore(unusual):
    assert parse(unusual) is None


def test_a_page_that_botocore_has_parsed():
    time = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    contents = [{"Key": "a", "ETag": '"0123"', "Size": 5, "LastModified": time}]
    found = page_of({"Contents": contents, "IsTruncated": True, "NextContinuationToken": "t"})
    assert found.entries("b").equals(page(an_object("a")).entries("b"))
    assert (found.keys, found.is_truncated, found.token) == (["a"], True, "t")
    assert page_of({"IsTruncated": False}).entries("b").num_rows == 0


def test_what_glacier_has_can_not_be_used():
    classes = ("GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "STANDARD")
    found = page(*(an_object(name, more=f"<StorageClass>{name}</StorageClass>") for name in classes))
    assert found.entries("b")["unusable"].to_pylist() == [ARCHIVED, ARCHIVED, "", ""]


def test_only_an_empty_object_marks_a_folder():
    entries = page(an_object("a/", 0), an_object("b/", 1), an_object("c", 0)).entries("b")
    assert entries["uri"].to_pylist() == ["s3://b/b/", "s3://b/c"]


@pytest.mark.parametrize(
    "time", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456789Z", "2026-01-02T04:04:05+01:00"]
)
def test_times_are_whole_seconds(time):
    (found,) = page(an_object("a", time=time)).entries("b")["last_modified"].to_pylist()
    assert found == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_page_is_cut_at_a_key():
    whole = page(*map(an_object, "abcd"), more=TRUNCATED)
    assert (whole.upto("d"), whole.upto(None)) == (whole, whole)
    assert (whole.upto("bb").keys, whole.upto("bb").is_truncated) == (["a", "b"], False)
    assert whole.upto("bb").entries("x").num_rows == 2


def test_a_size_that_is_no_number_is_an_error():
    with pytest.raises(pa.ArrowInvalid):
        page(an_object("a", size="five")).entries("b")
