import gzip
import threading
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SettingError
from pipeline.inputs import manifest
from pipeline.inputs.listing import list_inputs
from pipeline.inputs.manifest import read_manifest, read_uris


def read(path: Path) -> list[dict]:
    return pa.concat_tables(read_manifest(str(path))).to_pylist()


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


MANIFESTS = {
    "list.csv": "uri,etag,size_bytes,last_modified,label\ns3://b/a.jpg,007,3,2024-01-02T03:04:05Z,cat\ns3://b/b.jpg,2024-01-02,4,,7\n",
    "list.jsonl": '{"uri": "s3://b/a.jpg", "etag": "007", "size_bytes": 3, "last_modified": "2024-01-02T03:04:05Z"}\n'
    '{"uri": "s3://b/b.jpg", "etag": "2024-01-02", "size_bytes": 4, "last_modified": null}\n',
}


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.parquet"])
def test_a_manifest_is_believed(name, tmp_path):
    modified = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    expected = [
        {"uri": "s3://b/a.jpg", "etag": "007", "size_bytes": 3, "last_modified": modified},
        {"uri": "s3://b/b.jpg", "etag": "2024-01-02", "size_bytes": 4, "last_modified": None},
    ]
    if name in MANIFESTS:
        (tmp_path / name).write_text(MANIFESTS[name])
    else:
        pq.write_table(pa.Table.from_pylist(expected), tmp_path / name)
    assert read(tmp_path / name) == expected


@pytest.mark.parametrize(("num_unanswered", "is_outage"), [(2, False), (3, True)])
def test_where_most_can_not_be_looked_up_nothing_begins(num_unanswered, is_outage, tmp_path, monkeypatch):
    """Else all images would get a version that is not theirs, and be detected again."""
    make(tmp_path, *"abcd")
    (tmp_path / "list.txt").write_text("a\nb\nc\nd\n")
    stat = manifest.store.stat

    def sometimes(uri: str) -> object:
        if uri[-1] in "abc"[:num_unanswered]:
            raise TimeoutError("no answer")
        return stat(uri)

    monkeypatch.setattr(manifest.store, "stat", sometimes)
    if is_outage:
        with pytest.raises(TimeoutError):
            read(tmp_path / "list.txt")
    else:
        assert [row["etag"] == "" for row in read(tmp_path / "list.txt")] == [True, True, False, False]


def test_relative_names_of_find_are_keys():
    """Not so the names of objects, which may have any dots."""
    assert manifest._absolute("./a/./b.jpg", "s3://b/photos") == "s3://b/photos/a/./b.jpg"
    assert manifest._absolute("s3://b/./a.jpg", "s3://b/photos") == "s3://b/./a.jpg"


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.parquet"])
def test_a_manifest_of_names_is_looked_up_beside_it(name, tmp_path):
    make(tmp_path, "a.jpg", "deep/b", "elsewhere/c.jpg")
    uris = [
        "a.jpg",
        "deep/b",
        f"{tmp_path}/elsewhere/c.jpg",
        f"file://{tmp_path}/a.jpg",
        "././/a.jpg",
        "gone.jpg",
        "a.jpg",
    ]
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"uri": uris}), tmp_path / name)
    elif name.endswith(".csv"):
        (tmp_path / name).write_text("\n".join(["uri", *uris]))
    else:
        (tmp_path / name).write_text("\n".join(f'{{"uri": "{uri}"}}' for uri in uris))
    rows = read(tmp_path / name)
    found = [(row["uri"].removeprefix(f"{tmp_path}/"), row["size_bytes"]) for row in rows]
    a, b, c = ("a.jpg", 5), ("deep/b", 6), ("elsewhere/c.jpg", 15)
    assert found == [a, b, c, a, a, ("gone.jpg", None), a]
    assert rows[0] == rows[3] == rows[4] == rows[6]
    assert (rows[5]["etag"], rows[5]["last_modified"]) == ("", None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2024-01-02 03:04:05", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02T03:04:05.678901234Z", datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
        ("2024-01-02T03:04:05+02:00", datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2024-01-02", datetime(2024, 1, 2, tzinfo=UTC)),
        ("", None),
    ],
)
def test_times_of_a_csv_manifest(written, expected, tmp_path):
    (tmp_path / "list.csv").write_text(f"uri,etag,size_bytes,last_modified\ns3://b/a,x,3,{written}\n")
    assert read(tmp_path / "list.csv")[0]["last_modified"] == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.csv", "url\na.jpg\n", r"\['url'\]; it needs one named uri"),
        ("list.csv", "uri,etag\n,x\n", "without a uri"),
        ("list.jsonl", '{"uri": null}\n', "without a uri"),
        ("list.jsonl", '{"url": "a.jpg"}\n', "without a uri"),
        ("list.jsonl", '{"uri": 17}\n', "uri"),
        ("list.jsonl", "no json\n", "JSON"),
        ("list.csv", "uri,etag,size_bytes\ns3://b/a,x,big\n", "column size_bytes: .*big"),
        (
            "list.csv",
            "uri,etag,size_bytes,last_modified\ns3://b/a,x,3,yesterday\n",
            "column last_modified: .*yesterday",
        ),
        ("list.csv", "", "list.csv"),
        ("list.csv", "uri\n", "no images"),
        ("list.parquet", "text", "list.parquet"),
    ],
)
def test_a_manifest_that_is_none(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(SettingError, match=message):
        list_inputs((str(tmp_path / name),), False, tmp_path / "listing")


def test_batches_are_each_as_whole_as_they_are(tmp_path, monkeypatch):
    """Rows that say all are taken as they stand, etags without quotes; the others are asked for."""
    monkeypatch.setattr(manifest, "BATCH_ROWS", 2)
    make(tmp_path, "a.jpg", "b.jpg")
    table = {
        "uri": ["s3://b//x/../y", f"{tmp_path}/c.jpg", f"{tmp_path}//a.jpg", "/etc/../d.jpg", f"{tmp_path}/b.jpg"],
        "etag": ['"v1"', "v2", "v3", "v4", None],
        "size_bytes": [1, 2, 3, 4, None],
    }
    pq.write_table(pa.table(table), tmp_path / "list.parquet")
    batches = list(read_manifest(str(tmp_path / "list.parquet")))
    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    found = [(row["uri"], row["etag"]) for batch in batches for row in batch.to_pylist()]
    assert found[:4] == [
        ("s3://b//x/../y", "v1"),
        (f"{tmp_path}/c.jpg", "v2"),
        (f"{tmp_path}/a.jpg", "v3"),
        ("/d.jpg", "v4"),
    ]
    assert (found[4][0], found[4][1][-2:]) == (f"{tmp_path}/b.jpg", "-5")


def test_columns_that_do_not_matter_may_be_anything(tmp_path):
    """Of a CSV the types of columns are guessed from its beginning."""
    rows = [f"s3://b/{number},v1,1,{number}" for number in range(200_000)]
    (tmp_path / "list.csv").write_text("\n".join(["uri,etag,size_bytes,note", *rows, "s3://b/last,v1,1,text"]))
    assert len(read(tmp_path / "list.csv")) == 200_001
    (tmp_path / "list.jsonl").write_text('{"uri": "s3://b/a", "etag": "v", "size_bytes": 1, "more": {"deep": [1]}}\n')
    assert read(tmp_path / "list.jsonl")[0]["uri"] == "s3://b/a"


def test_a_long_csv_is_read_whole_while_the_machine_is_busy(tmp_path: Path) -> None:
    """Of two reads of one file, one would take parts of the other's: of 60 tries as here, 23 failed."""
    (tmp_path / "list.csv").write_text(
        "\n".join(["uri,etag,size_bytes", *(f"s3://b/{n},v1,1" for n in range(200_000))])
    )
    is_done = threading.Event()
    busy = [threading.Thread(target=lambda: [sum(range(10**5)) for _ in iter(is_done.is_set, True)]) for _ in range(2)]
    for thread in busy:
        thread.start()
    try:
        counts = {len(read_uris(str(tmp_path / "list.csv"))) for _ in range(15)}
    finally:
        is_done.set()
    assert counts == {200_000}


@pytest.mark.parametrize(
    "uri", ["https://host/a.jpg?X-Amz-Signature=hush", "https://u:hush@host/a.jpg", "s3://b/a.jpg?token=hush"]
)
def test_a_uri_with_a_secret_is_refused_and_not_repeated(uri: str, tmp_path: Path) -> None:
    """The table would hold it."""
    (tmp_path / "m.csv").write_text(f"uri,etag,size_bytes\ns3://b/token=3/a@2x.jpg,e,5\n{uri},e,5\n")
    with pytest.raises(SettingError, match=r"manifest .* has a password, a token or a signature") as found:
        list(read_manifest(str(tmp_path / "m.csv")))
    assert "hush" not in str(found.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", "uri,size_bytes\né.jpg,\ngone.jpg,\n"),
        ("list.txt", "é.jpg\n\ngone.jpg  \n"),
        ("list.jsonl", '{"uri": "é.jpg"}\n{"uri": "gone.jpg"}\n'),
        ("list.json", '{"uri": "é.jpg"}\n{"uri": "gone.jpg"}\n'),
        ("array.json", '[\n  "é.jpg",\n  "gone.jpg"\n]'),
        ("objects.json", '[{"uri": "é.jpg", "size_bytes": null, "label": 3}, {"uri": "gone.jpg"}]'),
    ],
)
def test_a_list_as_editors_and_tools_write_it(name, content, suffix, encoding, tmp_path):
    make(tmp_path, "é.jpg")
    written = content.encode(encoding)
    (tmp_path / (name + suffix)).write_bytes(gzip.compress(written) if suffix else written)
    rows = read(tmp_path / (name + suffix))
    assert [(row["uri"], row["size_bytes"]) for row in rows] == [
        (f"{tmp_path}/é.jpg", 6),
        (f"{tmp_path}/gone.jpg", None),
    ]


def test_an_array_of_something_else(tmp_path):
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(SettingError, match=r"list\.json' has the entry 1; give names, or objects with a uri"):
        read(tmp_path / "list.json")


def test_what_is_no_text_of_a_known_encoding(tmp_path):
    (tmp_path / "list.txt").write_bytes("é.jpg\n".encode("latin-1"))
    with pytest.raises(SettingError, match=r"list\.txt' can't be listed: .*utf-8"):
        list_inputs((str(tmp_path / "list.txt"),), False, tmp_path / "listing.parquet")
