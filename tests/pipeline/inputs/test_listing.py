import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest

from pipeline.errors import SettingError
from pipeline.inputs.listing import list_inputs, take_between, take_sample
from pipeline.inputs.manifest import LISTING
from pipeline.storage import local


@pytest.fixture
def listed(tmp_path_factory):
    """List inputs; rows as dictionaries, and how many names were skipped."""
    path = tmp_path_factory.mktemp("listing") / "listing.parquet"

    def listed(*inputs: object, all_files: bool = False, **between: datetime) -> tuple[list[dict], int]:
        skipped = list_inputs(tuple(map(str, inputs)), all_files, path, **between)
        return pq.read_table(path).to_pylist(), skipped

    return listed


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names(rows: list[dict], start: object) -> list[str]:
    return sorted(row["uri"].removeprefix(f"{start}/") for row in rows)


def test_a_folder_gives_its_images_and_counts_the_rest(tmp_path, listed):
    make(tmp_path, "a.jpg", "deep/B.PNG", "deep/er/c.webp", "notes.txt", "NOEXT")
    rows, skipped = listed(tmp_path)
    assert (names(rows, tmp_path), skipped) == (["a.jpg", "deep/B.PNG", "deep/er/c.webp"], 2)
    row = next(row for row in rows if row["uri"].endswith("a.jpg"))
    status = os.stat(tmp_path / "a.jpg")
    assert (row["etag"], row["size_bytes"]) == (f"{status.st_mtime_ns}-5", 5)
    assert row["last_modified"].timestamp() == pytest.approx(status.st_mtime, abs=1e-3)

    rows, skipped = listed(tmp_path, all_files=True)
    assert (len(rows), skipped) == (5, 0)


def test_a_file_url_is_the_same_folder(tmp_path, listed):
    make(tmp_path, "a.jpg")
    assert listed(f"file://{tmp_path}") == listed(tmp_path)


def test_several_inputs_are_one_listing(tmp_path, listed):
    make(tmp_path, "x/a.jpg", "y/b.jpg", "c.jpg")
    rows, _ = listed(tmp_path / "x", tmp_path / "y", tmp_path / "c.jpg")
    assert names(rows, tmp_path) == ["c.jpg", "x/a.jpg", "y/b.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("?.jpg", ["a.jpg", "b.jpg"]),
        ("[a]*", ["a.jpg", "a.png"]),
        ("*/*.jpg", ["deep/c.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "deep/c.jpg", "deep/er/d.jpg"]),
        ("deep/**", ["deep/c.jpg", "deep/er/d.jpg"]),
    ],
)
def test_a_glob_takes_what_matches(pattern, expected, tmp_path, listed):
    make(tmp_path, "a.jpg", "a.png", "b.jpg", "deep/c.jpg", "deep/er/d.jpg", "notes.txt")
    assert names(listed(f"{tmp_path}/{pattern}")[0], tmp_path) == expected


def test_a_name_with_glob_characters_is_itself(tmp_path, listed):
    make(tmp_path, "a[1].jpg", "a1.jpg", "set[1]/b.jpg", "set1/c.jpg", "what?.jpg")
    assert names(listed(tmp_path / "a[1].jpg")[0], tmp_path) == ["a[1].jpg"]
    assert names(listed(tmp_path / "set[1]")[0], tmp_path) == ["set[1]/b.jpg"]
    assert names(listed(tmp_path / "what?.jpg")[0], tmp_path) == ["what?.jpg"]


def test_a_key_that_is_named_twice_stands_once(tmp_path, listed):
    make(tmp_path, "deep/a.jpg", "b.jpg")
    (tmp_path / "list.csv").write_text("uri,etag,size_bytes\ns3://b/a,v1,1\ns3://b/a,v2,1\ns3://b/a,v1,1\n")
    rows, _ = listed(tmp_path, tmp_path / "deep", tmp_path / "list.csv")
    keys = sorted((row["uri"].removeprefix(f"{tmp_path}/"), row["etag"]) for row in rows if row["uri"].startswith("s3"))
    assert (len(rows), keys) == (4, [("s3://b/a", "v1"), ("s3://b/a", "v2")])


def test_inputs_that_give_nothing(tmp_path, listed):
    make(tmp_path, "texts/notes.txt", "texts/more.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match="nowhere"):
        listed(tmp_path / "nowhere")
    with pytest.raises(SettingError, match=r"empty': no images$"):
        listed(tmp_path / "empty")
    with pytest.raises(SettingError, match=r"no images; 2 other files are there \(--all-files"):
        listed(tmp_path / "texts")
    with pytest.raises(SettingError, match="no images"):
        listed(tmp_path / "texts/*.jpg")
    with pytest.raises(SettingError, match="nowhere"):
        listed(tmp_path / "nowhere/*.jpg")
    with pytest.raises(SettingError, match="none"):
        listed(tmp_path / "none.csv")


def test_pictures_that_are_not_read_are_told_and_counted(tmp_path, listed, caplog):
    """Of those of a telephone half may be. Who asks for all files has them fail one by one."""
    make(tmp_path, "a.jpg", "b.heic", "c.HEIC", "d.dng", "e.txt", "._b.heic")
    rows, skipped = listed(tmp_path)
    assert (names(rows, tmp_path), skipped) == (["a.jpg"], 5)
    assert "3 of " in caplog.text
    assert "pictures of this kind can't be read; convert them to JPEG" in caplog.text
    caplog.clear()
    assert len(listed(tmp_path, all_files=True)[0]) == 5
    assert "JPEG" not in caplog.text


def test_a_name_that_is_no_text_is_told_and_counted(tmp_path, listed, caplog):
    make(tmp_path, "a.jpg")
    for name in (b"/\xff.jpg", b"/\xfe.jpg"):
        with open(os.fsencode(tmp_path) + name, "wb"):
            pass
    rows, skipped = listed(tmp_path)
    assert (names(rows, tmp_path), skipped) == (["a.jpg"], 2)
    assert "2 of " in caplog.text
    assert "their names are not UTF-8; rename them" in caplog.text


def test_what_systems_keep_beside_images_is_skipped(tmp_path, listed):
    make(
        tmp_path, "a.jpg", "deep/b.jpg", "._a.jpg", "deep/._b.jpg", ".hidden/c.jpg", ".ipynb_checkpoints/a-checkpoint.jpg",
        ".Trash-1000/files/d.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_B.jpg", "__MACOSX/deep/._b.jpg", "$RECYCLE.BIN/e.jpg",
    )  # fmt: skip
    rows, skipped = listed(tmp_path)
    assert (names(rows, tmp_path), skipped) == (["a.jpg", "deep/b.jpg"], 8)
    assert names(listed(tmp_path / "**/*.jpg")[0], tmp_path) == ["a.jpg", "deep/b.jpg"]
    assert names(listed(tmp_path / ".hidden")[0], tmp_path) == [".hidden/c.jpg"], "what is named is taken"
    assert names(listed(tmp_path / ".hidden/*.jpg")[0], tmp_path) == [".hidden/c.jpg"]
    assert names(listed(tmp_path / "._a.jpg")[0], tmp_path) == ["._a.jpg"]


@pytest.mark.s3
def test_dots_that_hide_and_dots_that_do_not(s3, listed):
    bucket = s3.bucket()
    hidden = ("..a.jpg", "b/...jpg", ".c/d.jpg", "..e/f.jpg", "g/.h.jpg")
    s3.put(bucket, dict.fromkeys(("a/../b.jpg", "a/./c.jpg", "d..jpg", "e./f.JPG", "f.gİf", *hidden), b"x"))
    rows, skipped = listed(f"s3://{bucket}")
    assert names(rows, f"s3://{bucket}") == ["a/../b.jpg", "a/./c.jpg", "d..jpg", "e./f.JPG"]
    assert skipped == len(hidden) + 1


def test_pages_are_written_as_one_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "PAGE", 2)
    make(tmp_path, *(f"in/{number}.jpg" for number in range(9)))
    list_inputs((f"{tmp_path}/in",), False, tmp_path / "listing.parquet")
    written = pq.read_metadata(tmp_path / "listing.parquet")
    assert (written.num_rows, written.num_row_groups) == (9, 1)


def test_a_tables_own_files_are_no_images(tmp_path, listed):
    part = "part-00000-e1fb707b-f273-4b34-94ef-cce1188468d8-c000.snappy.parquet"
    make(
        tmp_path, "a.jpg", "data.bin", "run_date=x/other.bin", f"t/run_date=2026-01-02/{part}", "t/_delta_log/0.json",
        "t/_ssd_batch/runs/r.parquet",
    )  # fmt: skip
    rows, skipped = listed(tmp_path, all_files=True)
    assert (names(rows, tmp_path), skipped) == (["a.jpg", "data.bin", "run_date=x/other.bin"], 3)


def test_linked_folders_are_followed_once(tmp_path, listed):
    make(tmp_path, "in/a.jpg", "in/deep/b.jpg", "elsewhere/c.jpg", "elsewhere/more/d.jpg")
    links = {
        "in/link": "elsewhere", "in/again": "in/deep", "in/up": ".", "in/self": "in", "elsewhere/back": "in",
        "in/gone": "nowhere", "in/file.jpg": "elsewhere/c.jpg",
    }  # fmt: skip
    for name, target in links.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    rows, _ = listed(tmp_path / "in")
    expected = ["a.jpg", "deep/b.jpg", "file.jpg", "link/c.jpg", "link/more/d.jpg"]
    assert names(rows, tmp_path / "in") == expected


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no file system that takes such times")
def test_a_time_that_no_calendar_has(listed):
    with TemporaryDirectory(dir="/dev/shm") as folder:
        make(Path(folder), "a.jpg")
        os.utime(Path(folder, "a.jpg"), (2.6e11, 2.6e11))  # the year 10,209
        ((row,), _) = listed(folder)
    assert (row["last_modified"], row["etag"]) == (None, "260000000000000000000-5")


def test_a_folder_that_may_not_be_listed_is_told(tmp_path, listed, caplog, monkeypatch):
    make(tmp_path, "a.jpg", "locked/b.jpg")
    look = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    rows, skipped = listed(tmp_path)
    assert (names(rows, tmp_path), skipped) == (["a.jpg"], 1)
    assert "folders that can't be listed (Permission denied)" in caplog.text
    with pytest.raises(SettingError, match=r"can't be listed: .*Permission denied"):
        listed(tmp_path / "locked")


def test_colons_in_names_are_no_archives(tmp_path, listed):
    make(tmp_path, "cam::7/a::b.jpg")
    assert names(listed(tmp_path / "cam::7")[0], tmp_path) == ["cam::7/a::b.jpg"]


def test_archives_are_refused(tmp_path, listed):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"x")
    for url in (f"zip://a.jpg::{tmp_path}/a.zip", f"zip://*.jpg::{tmp_path}/a.zip", f"zip://::{tmp_path}/a.zip"):
        with pytest.raises(SettingError, match="files within an archive are not read; unpack it"):
            listed(url)


@pytest.mark.s3
def test_what_glacier_has_is_told_and_counted(s3, listed, caplog):
    bucket = s3.bucket()
    s3.put(bucket, {"a.jpg": b"x"})
    s3.client.put_object(
        Bucket=bucket, Key="b.jpg", Body=b"x", StorageClass="GLACIER" if s3.name == "moto" else "STANDARD"
    )
    rows, skipped = listed(f"s3://{bucket}")
    if s3.name == "moto":
        assert (names(rows, f"s3://{bucket}"), skipped) == (["a.jpg"], 1)
        assert "they are archived in Glacier; restore them" in caplog.text


@pytest.mark.s3
def test_buckets_prefixes_globs_and_manifests_of_s3(s3, listed):
    bucket = s3.bucket()
    keys = ("a.jpg", "deep/b.jpg", "deep//c.jpg", "deep/er/d.jpg", "a[1].jpg", "notes.txt")
    s3.put(bucket, {key: key.encode() for key in keys})
    s3.put(bucket, {"deep/list.csv": b"uri\nb.jpg\n/c.jpg\nnone.jpg\n"})
    url = f"s3://{bucket}"

    rows, skipped = listed(url)
    assert (names(rows, url), skipped) == (["a.jpg", "a[1].jpg", "deep//c.jpg", "deep/b.jpg", "deep/er/d.jpg"], 2)
    row = next(row for row in rows if row["uri"] == f"{url}/a.jpg")
    head = s3.client.head_object(Bucket=bucket, Key="a.jpg")
    assert (row["etag"], row["size_bytes"], row["last_modified"]) == (head["ETag"].strip('"'), 5, head["LastModified"])

    assert names(listed(f"{url}/deep/")[0], url) == ["deep//c.jpg", "deep/b.jpg", "deep/er/d.jpg"]
    assert names(listed(f"{url}/deep/*.jpg")[0], url) == ["deep/b.jpg"]
    assert names(listed(f"{url}/**/?.jpg")[0], url) == ["a.jpg", "deep//c.jpg", "deep/b.jpg", "deep/er/d.jpg"]
    assert names(listed(f"{url}/a[1].jpg")[0], url) == ["a[1].jpg"]
    assert names(listed(f"{url}/a.jpg")[0], url) == ["a.jpg"]

    rows, _ = listed(f"{url}/deep/list.csv")
    assert [(row["uri"], row["size_bytes"]) for row in rows] == [
        (f"{url}/deep/b.jpg", 10),
        ("/c.jpg", None),
        (f"{url}/deep/none.jpg", None),
    ]


@pytest.mark.s3
def test_s3_inputs_that_give_nothing(s3, listed):
    bucket = s3.bucket()
    for url in ("s3://no-such-bucket", "s3://no-such-bucket/*.jpg", f"s3://{bucket}/none", f"s3://{bucket}/none.csv"):
        with pytest.raises(SettingError, match="can't be listed"):
            listed(url)
    with pytest.raises(SettingError, match="no images"):
        listed(f"s3://{bucket}")


def test_only_what_was_modified_in_between_is_listed(tmp_path, listed):
    make(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    for day in days:
        os.utime(tmp_path / f"{day.day}.jpg", (day.timestamp(), day.timestamp()))
    assert names(listed(tmp_path, since=days[1])[0], tmp_path) == ["2.jpg", "3.jpg"]
    assert names(listed(tmp_path, until=days[1])[0], tmp_path) == ["1.jpg"]
    assert names(listed(tmp_path, since=days[0], until=days[2])[0], tmp_path) == ["1.jpg", "2.jpg"]
    assert listed(tmp_path, since=datetime(2027, 1, 1, tzinfo=UTC)) == ([], 0)
    (tmp_path / "list.csv").write_text("uri,etag,size_bytes\n3.jpg,v1,1\n")
    assert len(listed(tmp_path / "list.csv", until=days[0])[0]) == 1, "a time that is not known"


def test_a_listing_is_cut_by_time(tmp_path, listing):
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    listed = listing(*((f"{day.day}", "v1", day) for day in days), ("of no time", "v1"))
    path = tmp_path / "day's.parquet"
    take_between(listed, days[1], days[2], path)
    assert sorted(pq.read_table(path)["uri"].to_pylist()) == ["2", "of no time"]
    assert pq.read_table(path).cast(LISTING).num_rows == 2
    take_between(listed, None, None, path)
    assert pq.read_table(path).num_rows == 4


def test_a_sample_is_the_same_whatever_comes_beside_it(listing):
    """Of a hundred images the ten with the lowest hashes; of fewer images those of them that are there."""
    names = [f"{number}.jpg" for number in range(100)]

    def sampled(among: list[str], num_images: int) -> set[str]:
        path = listing(*((name, "v1") for name in among))
        take_sample(path, num_images)
        return set(pq.read_table(path)["uri"].to_pylist())

    chosen = sampled(names, 10)
    assert len(chosen) == 10
    assert sampled(names[::-1], 10) == chosen
    assert sampled(names, 11) > chosen
    assert chosen & set(names[:50]) <= sampled(names[:50], 10)
    assert sampled(names[:5], 10) == set(names[:5])
