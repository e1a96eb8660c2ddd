import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SettingError
from pipeline.inputs.inventory import find_inventory
from pipeline.inputs.listing import list_inputs

MODIFIED = "2026-01-02T03:04:05.000Z"
FIELDS = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
ROWS = [
    ("photos", "cam%3D7/a+b%2Bc%C3%A9.jpg", "", "true", "false", "5", MODIFIED, "0123456789abcdef0123456789abcdef", "STANDARD"),
    ("photos", "old.jpg", "v1", "false", "false", "5", MODIFIED, "0123456789abcdef0123456789abcde0", "STANDARD"),
    ("photos", "deleted.jpg", "", "true", "true", "", MODIFIED, "", ""),
    ("photos", "folder%2F", "", "true", "false", "0", MODIFIED, "d41d8cd98f00b204e9800998ecf8427e", "STANDARD"),
    ("photos", "notes.txt", "", "true", "false", "9", MODIFIED, "0123456789abcdef0123456789abcde1", "STANDARD"),
    ("photos", "cold.jpg", "", "true", "false", "5", MODIFIED, "0123456789abcdef0123456789abcde2", "DEEP_ARCHIVE"),
    ("photos", "b.jpg", "", "true", "false", "7", MODIFIED, "0123456789abcdef0123456789abcdef-3", "GLACIER_IR"),
]  # fmt: skip
EXPECTED = [
    ("s3://photos/b.jpg", "0123456789abcdef0123456789abcdef-3", 7, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ("s3://photos/cam=7/a b+cé.jpg", "0123456789abcdef0123456789abcdef", 5, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
]


def manifest(kind: str, key: str, schema: str = FIELDS) -> str:
    """As S3 writes it."""
    return json.dumps(
        {
            "sourceBucket": "photos",
            "destinationBucket": "arn:aws:s3:::lists",
            "version": "2016-11-30",
            "creationTimestamp": "1514944800000",
            "fileFormat": kind,
            "fileSchema": schema,
            "files": [{"key": key, "size": 1, "MD5checksum": "f11166069f1990abeb9c97ace9cdfabc"}],
        }
    )


def as_csv(rows: list[tuple[str, ...]]) -> bytes:
    return "".join(",".join(f'"{value}"' for value in row) + "\n" for row in rows).encode()


def listed(url: object, tmp_path: Path) -> tuple[list[tuple[object, ...]], int]:
    skipped = list_inputs((str(url),), False, tmp_path / "listing.parquet")
    return sorted(tuple(row.values()) for row in pq.read_table(tmp_path / "listing.parquet").to_pylist()), skipped


def test_a_csv_inventory(tmp_path, caplog):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/1.csv.gz").write_bytes(gzip.compress(as_csv(ROWS)))
    (tmp_path / "manifest.json").write_text(manifest("CSV", "photos/all/data/1.csv.gz"))
    assert listed(tmp_path / "manifest.json", tmp_path) == (EXPECTED, 2)
    assert "they are archived in Glacier" in caplog.text


def test_a_parquet_inventory(tmp_path):
    """Its keys are as they are."""
    rows = [
        {
            "bucket": "photos", "key": "cam=7/a b+cé.jpg", "version_id": None, "is_latest": True, "is_delete_marker": False, "size": 5,
            "last_modified_date": datetime(2026, 1, 2, 3, 4, 5), "e_tag": "0123456789abcdef0123456789abcdef", "storage_class": "STANDARD",
        },
        {
            "bucket": "photos", "key": "old.jpg", "version_id": "1", "is_latest": False, "is_delete_marker": False, "size": 5,
            "last_modified_date": datetime(2026, 1, 2), "e_tag": "0123456789abcdef0123456789abcde0", "storage_class": "STANDARD",
        },
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "1.parquet")
    (tmp_path / "manifest.json").write_text(manifest("Parquet", "photos/all/data/1.parquet", "message s3.inventory {}"))
    assert listed(tmp_path / "manifest.json", tmp_path) == (EXPECTED[1:], 0)


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz"])
def test_a_csv_alone_tells_its_fields_by_its_first_row(name, tmp_path):
    kept = [(row[0], row[1], *row[5:]) for row in (ROWS[0], *ROWS[4:])]
    content = as_csv(kept)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert listed(tmp_path / name, tmp_path) == (EXPECTED, 2)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_csv_alone_of_all_versions(first, tmp_path):
    """Whatever is its first row: what is there, an earlier version, or what was deleted."""
    rows = [ROWS[first], *(row for row in ROWS if row is not ROWS[first])]
    (tmp_path / "list.csv").write_bytes(as_csv(rows))
    assert listed(tmp_path / "list.csv", tmp_path)[0] == EXPECTED


def test_an_inventory_without_etags_is_told(tmp_path, caplog):
    (tmp_path / "1.csv").write_bytes(as_csv([("photos", "a.jpg", "5")]))
    (tmp_path / "manifest.json").write_text(manifest("CSV", "1.csv", "Bucket, Key, Size"))
    assert listed(tmp_path / "manifest.json", tmp_path)[0] == [("s3://photos/a.jpg", "", 5, None)]
    assert "the inventory has no ETag; when objects change it is not noticed" in caplog.text


@pytest.mark.s3
def test_an_inventory_on_s3(s3, tmp_path):
    bucket = s3.bucket()
    contents = {"photos/all/data/1.csv.gz": gzip.compress(as_csv(ROWS))}
    described = manifest("CSV", "photos/all/data/1.csv.gz").replace(":::lists", f":::{bucket}")
    s3.put(bucket, contents | {"photos/all/2026-01-02T00-00Z/manifest.json": described.encode()})
    assert listed(f"s3://{bucket}/photos/all/2026-01-02T00-00Z/manifest.json", tmp_path) == (EXPECTED, 2)


def test_what_is_not_read_is_said(tmp_path):
    (tmp_path / "manifest.json").write_text(manifest("ORC", "photos/all/data/1.orc"))
    with pytest.raises(SettingError, match="is written as ORC; let S3 write CSV or Parquet"):
        listed(tmp_path / "manifest.json", tmp_path)
    (tmp_path / "manifest.json").write_text('{"sourceBucket": "photos"}')
    with pytest.raises(SettingError, match="its manifest lacks 'fileFormat'"):
        listed(tmp_path / "manifest.json", tmp_path)
    (tmp_path / "list.csv").write_text("name,size\na.jpg,5\n")
    with pytest.raises(SettingError, match="it needs one named uri"):
        listed(tmp_path / "list.csv", tmp_path)


def test_other_manifests_are_none(tmp_path):
    (tmp_path / "manifest.json").write_text('["a.jpg"]')
    (tmp_path / "list.csv").write_text("uri,etag,size_bytes\ns3://b/a.jpg,0123456789abcdef0123456789abcdef,5\n")
    assert find_inventory(str(tmp_path / "manifest.json")) is None
    assert find_inventory(str(tmp_path / "list.csv")) is None
