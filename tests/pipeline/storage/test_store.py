import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

import fsspec
import fsspec.implementations.memory
import pytest
from botocore.exceptions import EndpointConnectionError

from pipeline.errors import SettingError, is_outage
from pipeline.images.read import ChangedError, read_version
from pipeline.storage import local, store
from pipeline.storage.fsspec_store import FsspecStore
from pipeline.storage.stored import StoredObject
from pipeline.urls import absolute, bucket_and_key

ODD_KEYS = [
    "with space.jpg", " leading space.jpg", "ünïcödé_图像.jpg", "é composed.jpg", "e\u0301 decomposed.jpg",
    "hash#1.jpg", "question?x=1.jpg", "[bracket].jpg", "star*.jpg", "A.jpg", "%41.jpg", "a%2Fb.jpg", "a/b.jpg", "plus+plus.jpg",
    'quote".jpg', "back\\slash.jpg", "and&and.jpg", "x//y.jpg", "x/y.jpg", "./dot.jpg", "dot.jpg", "p/../up.jpg", "up.jpg",
    "/leading.jpg", "leading.jpg", "trailing/", "trailing", "tab\t.jpg",
    "new\nline.jpg", "return\r.jpg", "..", "a/..", "a/.", "//", "/", "%2e%2e/x.jpg", "semi;colon,comma.jpg", "nul\x01l.jpg", "emoji🦀.jpg",
]  # fmt: skip


def walk(url: str) -> dict[str, StoredObject]:
    return {entry.uri: entry for page in store.walk(absolute(url)) for entry in page}


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    fs.pipe({"/pictures/a.jpg": b"aa", "/pictures/deep/b.jpg": b"bbb"})
    yield fs
    fs.rm("/pictures", recursive=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/data/a.jpg", "/data/a.jpg"),
        ("/data//x/../a.jpg", "/data/a.jpg"),
        ("/data/", "/data/"),
        ("/", "/"),
        ("file:///data/a b.jpg", "/data/a b.jpg"),
        ("s3://bucket/a//../b", "s3://bucket/a//../b"),
        ("s3a://bucket/key", "s3://bucket/key"),
        ("s3n://bucket/key", "s3://bucket/key"),
        ("memory://x/y", "memory://x/y"),
    ],
)
def test_one_spelling_a_place(given, expected):
    assert absolute(given) == expected


def test_relative_paths_start_at_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("a.jpg") == f"{tmp_path}/a.jpg"


def test_bucket_and_key_keep_the_keys_slashes():
    assert bucket_and_key("s3://bucket//a//b") == ("bucket", "/a//b")
    assert bucket_and_key("s3://bucket") == ("bucket", "")


def test_an_unknown_scheme_is_a_wrong_setting():
    with pytest.raises(SettingError, match="nosuch://"):
        store.read("nosuch://x")


def test_a_local_etag_is_time_and_size(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"aaa")
    os.utime(path, ns=(0, 1_500_000_000_123_456_789))
    found = store.stat(str(path))
    assert (found.etag, found.size_bytes) == ("1500000000123456789-3", 3)
    assert found.last_modified.isoformat().startswith("2017-07-14T02:40:00.123")


def test_a_folder_is_walked_page_by_page(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "PAGE", 2)
    for name in ("a", "b", "deep/c", "deep/er/d", "deep/er/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    pages = list(store.walk(str(tmp_path)))
    assert [len(page) for page in pages] == [2, 2, 1]
    assert {Path(e.uri).name for page in pages for e in page} == set("abcde")


def test_a_single_file_is_walked_as_itself(tmp_path):
    (tmp_path / "a[1].jpg").write_bytes(b"a")
    assert list(walk(str(tmp_path / "a[1].jpg"))) == [f"{tmp_path}/a[1].jpg"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        walk(str(tmp_path / "nowhere"))


def test_the_listed_version_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"first")
    listed = store.stat(str(path))
    assert read_version(listed.uri, listed.etag, listed.size_bytes).data == b"first"
    assert read_version(listed.uri, "", None).data == b"first"

    path.write_bytes(b"other")
    os.utime(path, ns=(0, 1))
    with pytest.raises(ChangedError, match="changed"):
        read_version(listed.uri, listed.etag, listed.size_bytes)
    with pytest.raises(ChangedError, match="5 bytes were read where 4 were listed"):
        read_version(listed.uri, "", 4)


def test_any_fsspec_url_is_walked_and_read(memory):
    found = walk("memory://pictures")
    assert {uri: entry.size_bytes for uri, entry in found.items()} == {
        "memory://pictures/a.jpg": 2,
        "memory://pictures/deep/b.jpg": 3,
    }
    for entry in found.values():
        assert store.stat(entry.uri) == entry
    assert read_version("memory://pictures/a.jpg", found["memory://pictures/a.jpg"].etag, 2).data == b"aa"
    with pytest.raises(ChangedError):
        read_version("memory://pictures/a.jpg", "", 3)
    with pytest.raises(FileNotFoundError):
        walk("memory://nowhere")


class Web(SimpleHTTPRequestHandler):
    """A folder by HTTP, with the times of its files, or without."""

    tells_times = True

    def send_header(self, name: str, value: str) -> None:
        if name != "Last-Modified" or self.tells_times:
            super().send_header(name, value)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    for name in ("in/a.jpg", "in/deep/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"aa")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_folder_and_a_file_by_http(web: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = walk(f"{web}/in/")
    assert {uri: entry.size_bytes for uri, entry in found.items()} == {f"{web}/in/a.jpg": 2, f"{web}/in/deep/b.jpg": 2}
    (one,) = walk(f"{web}/in/a.jpg").values()
    assert found[one.uri] == store.stat(one.uri) == one
    assert read_version(one.uri, one.etag, 2).data == b"aa"
    os.utime(tmp_path / "in/a.jpg", (1, 1))
    assert store.stat(one.uri).etag not in ("", one.etag)
    assert not caplog.messages
    with pytest.raises(OSError, match="nothing is there"):
        walk(f"{web}/in/none.jpg")


def test_a_server_that_does_not_answer_is_an_outage() -> None:
    for url in ("http://127.0.0.1:9/in/a.jpg", "https://no-such-host.invalid/in/"):
        with pytest.raises(OSError, match="Cannot connect to host") as found:
            walk(url)
        assert is_outage(found.value)


@pytest.mark.parametrize("call", ["read", "exists", "names", "delete"])
def test_whatever_is_asked_of_a_store_that_is_away_is_an_os_error(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def __getattr__(self, name: str) -> NoReturn:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    away = FsspecStore()
    monkeypatch.setattr(away, "filesystem", lambda url: (Away(), "bucket/a"))
    with pytest.raises(OSError, match="Could not connect"):
        getattr(away, call)("s3://bucket/a")


def test_files_whose_version_nobody_tells(
    web: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Web, "tells_times", False)
    found = walk(f"{web}/in/")
    assert {entry.etag for entry in found.values()} == {""}
    assert caplog.messages == [
        f"{web}/in/: 2 files have neither an ETag nor a time; when they change it is not noticed"
    ]


def test_a_host_is_part_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of file systems whose paths lack it, such as FTP's and HDFS's."""

    class Hosted(fsspec.implementations.memory.MemoryFileSystem):
        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.partition("://")[2].partition("/")[2].rstrip("/") if "://" in path else path.rstrip("/")

    fsspec.register_implementation("hosted", Hosted, clobber=True)
    fsspec.filesystem("hosted").pipe({"/host-test/deep/a.jpg": b"aa"})
    try:
        assert list(walk("hosted://server/host-test")) == ["hosted://server/host-test/deep/a.jpg"]
        assert list(walk("hosted://server/host-test/")) == ["hosted://server/host-test/deep/a.jpg"]
    finally:
        fsspec.filesystem("hosted").rm("/host-test", recursive=True)


def test_a_file_that_is_written_again_is_never_half_there(tmp_path, monkeypatch):
    store.write(f"{tmp_path}/a", b"first")
    with monkeypatch.context() as killed:
        killed.setattr(os, "replace", lambda *_: None)
        store.write(f"{tmp_path}/a", b"sec")
    assert store.read(f"{tmp_path}/a") == b"first"
    store.write(f"{tmp_path}/a", b"third")
    assert store.read(f"{tmp_path}/a") == b"third"


def test_write_makes_the_folder(tmp_path):
    store.write(f"{tmp_path}/x/y/z.txt", b"z")
    assert store.read(f"{tmp_path}/x/y/z.txt") == b"z"
    store.put(tmp_path / "x/y/z.txt", f"{tmp_path}/new/copy.txt")
    assert store.read(f"{tmp_path}/new/copy.txt") == b"z"
    store.delete(f"{tmp_path}/new/copy.txt")
    assert not (tmp_path / "new/copy.txt").exists()


def check_creation(url: str) -> None:
    def create(number: int) -> bool:
        try:
            store.create(url, str(number).encode())
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        created = list(threads.map(create, range(8)))
    assert created.count(True) == 1
    assert store.read(url) == str(created.index(True)).encode()


def test_one_alone_creates_a_file(tmp_path, memory):
    check_creation(f"{tmp_path}/new/folder/a")
    assert [entry.name for entry in (tmp_path / "new/folder").iterdir()] == ["a"]
    with pytest.raises(FileExistsError):
        store.create("memory://pictures/a.jpg", b"")


@pytest.mark.s3
def test_one_alone_creates_an_object(s3):
    check_creation(f"s3://{s3.bucket()}/new/folder/a")
    with pytest.raises(FileNotFoundError):
        store.create("s3://no-such-bucket/a", b"")


@pytest.mark.s3
def test_odd_keys_are_listed_and_read_as_themselves(s3):
    bucket = s3.bucket()
    keys = [key for key in ODD_KEYS if s3.name != "moto" or "\n" not in key]  # moto answers 404 to these
    s3.put(bucket, {key: key.encode() for key in keys})
    found = walk(f"s3://{bucket}")
    assert found.keys() == {f"s3://{bucket}/{key}" for key in keys}
    for key in keys:
        entry = found[f"s3://{bucket}/{key}"]
        assert read_version(entry.uri, entry.etag, entry.size_bytes).data == key.encode()
        assert store.stat(entry.uri) == entry
        with pytest.raises(ChangedError):
            read_version(entry.uri, "0" * 32, None)


@pytest.mark.s3
def test_a_prefix_is_a_folder(s3):
    bucket = s3.bucket()
    s3.put(bucket, {"a/1.jpg": b"1", "a/": b"", "ab/2.jpg": b"2", "a.jpg": b"3"})
    assert list(walk(f"s3://{bucket}/a")) == [f"s3://{bucket}/a/1.jpg"]
    assert list(walk(f"s3://{bucket}/a/")) == [f"s3://{bucket}/a/1.jpg"]
    assert list(walk(f"s3a://{bucket}/a.jpg")) == [f"s3://{bucket}/a.jpg"]


@pytest.mark.s3
def test_what_is_not_on_s3_is_an_os_error(s3):
    bucket = s3.bucket()
    for url in (f"s3://{bucket}/none", f"s3://{bucket}//none", "s3://no-such-bucket/none"):
        for ask in (store.stat, walk, store.read, lambda url: read_version(url, "", None)):
            with pytest.raises(FileNotFoundError):
                ask(url)
    with pytest.raises(FileNotFoundError):
        walk("s3://no-such-bucket")
