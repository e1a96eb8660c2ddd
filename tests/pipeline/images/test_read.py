"""What is overwritten while it is read: never a mixture of both."""

import io
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.images import read
from pipeline.images.read import ChangedError, read_version
from pipeline.storage.local import local_etag


class OverwrittenInMidRead(io.FileIO):
    """A file that another process fills with new bytes of the same number when the half of it is read."""

    def read(self, size: int | None = -1) -> bytes:
        half = super().read(500) or b""
        subprocess.run(["dd", "if=/dev/zero", f"of={self.name}", "bs=1000", "count=1", "conv=notrunc"], check=True)
        return half + (super().read() or b"")


def test_a_file_that_is_written_to_in_mid_read_is_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"a" * 1000)
    os.utime(path, (1, 1))
    etag = local_etag(os.stat(path))
    assert read_version(str(path), etag, 1000).data == b"a" * 1000
    monkeypatch.setattr(read, "open", lambda path, _: OverwrittenInMidRead(path), raising=False)
    with pytest.raises(ChangedError, match="while it was read"):
        read_version(str(path), etag, 1000)
    with pytest.raises(ChangedError, match="since it was listed"):
        read_version(str(path), etag, 1000)


class CutServer(ThreadingHTTPServer):
    """A store whose first two answers break off half way, and whose object is another one after them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CutAnswers)
        self.conditions: list[tuple[str | None, str | None]] = []


class CutAnswers(BaseHTTPRequestHandler):
    server: CutServer

    def do_GET(self) -> None:
        condition = self.headers["If-Match"]
        self.server.conditions.append((condition, self.headers["Range"]))
        is_cut = len(self.server.conditions) <= 2
        self.send_response(200 if is_cut else 412 if condition == '"v1"' else 206)
        self.send_header("ETag", '"v1"' if is_cut else '"v2"')
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        if not is_cut:
            self.send_header("Content-Range", "bytes 500-999/1000")
        self.send_header("Content-Length", "1000" if is_cut else "0" if condition else "500")
        self.end_headers()
        self.wfile.write(b"a" * 500 if is_cut else b"" if condition else b"b" * 500)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cut(s3, monkeypatch: pytest.MonkeyPatch) -> Iterator[CutServer]:
    server = CutServer()
    threading.Thread(target=server.serve_forever).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_address[1]}")
    s3.forget()
    yield server
    server.shutdown()
    server.server_close()
    s3.forget()


@pytest.mark.s3
@pytest.mark.parametrize(("etag", "condition"), [("v1", '"v1"'), ("", None)])
def test_an_object_whose_body_breaks_off_is_not_continued_with_another(
    etag: str, condition: str | None, cut: CutServer
) -> None:
    """After the first try, obstore asks for the rest by itself: under the same condition, and it looks at the answer's ETag."""
    with pytest.raises(Exception, match=r"precondition|response body error"):
        read_version("s3://bucket/key", etag, 1000)
    assert cut.conditions == [(condition, None), (condition, None), (condition, "bytes=500-999")]


@pytest.mark.s3
def test_who_is_not_patient_asks_once(cut: CutServer) -> None:
    """A page that waits for its pictures, for example."""
    with pytest.raises(Exception, match="error"):
        read_version("s3://bucket/key", "v1", 1000, is_patient=False)
    assert len(cut.conditions) == 1


class CarelessServer(BaseHTTPRequestHandler):
    """Of a store that does not know If-Match."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("ETag", 'W/"v2"')
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"new")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.s3
@pytest.mark.parametrize("key", ["key", "odd//key"])
def test_another_version_is_noticed_where_the_store_does_not_know_conditions(
    key: str, s3, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), CarelessServer)
    threading.Thread(target=server.serve_forever).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_address[1]}")
    s3.forget()
    try:
        with pytest.raises(ChangedError, match="changed since it was listed"):
            read_version(f"s3://bucket/{key}", "v1", 3)
        assert read_version(f"s3://bucket/{key}", "v2", 3).data == b"new"
        assert read_version(f"s3://bucket/{key}", "", 3).data == b"new"
    finally:
        server.shutdown()
        server.server_close()
        s3.forget()
