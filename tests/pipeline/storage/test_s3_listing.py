"""What is cut, and that each key comes once however it is cut: of made-up keys, and against servers."""

import random
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import botocore.handlers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.storage import s3_listing
from pipeline.storage.s3_listing import KEY_BYTES, Range, cut, walk
from pipeline.storage.s3_page import FACTS, Page

DIGITS = "0123456789"
NAMES = ["", "a", "b", "b/", "b//", "b/c/", "b/c/d/", "é/", "é/ü ", "x+y/", "x y/", "z~/", "0/1/2/3/"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | st.text("ab/0", min_size=1)
KEYS = TEXTS | st.tuples(st.sampled_from(["", "p/", "z" * 1000]), TEXTS).map("".join)


def keys(bucket: str, prefix: str) -> list[str]:
    return [key for page in walk(bucket, prefix) for key in page.keys]


@pytest.fixture
def small_pages(monkeypatch) -> None:
    monkeypatch.setattr(s3_listing, "PAGE", 3)


def test_a_range_is_cut_evenly_between_its_ends():
    assert cut(Range("b", "p/", "p/1", "p/9"), DIGITS, 4) == [
        Range("b", "p/", "p/1", "p/3"),
        Range("b", "p/", "p/3", "p/5"),
        Range("b", "p/", "p/5", "p/7"),
        Range("b", "p/", "p/7", "p/9"),
    ]
    assert cut(Range("b", "p/", "p/5", None), DIGITS, 2) == [Range("b", "p/", "p/5", "p/74"), Range("b", "p/", "p/74")]
    assert cut(Range("b", "p/", "p/5", "p/50"), DIGITS, 2) == [Range("b", "p/", "p/5", "p/50")], "nothing is between"


def test_no_part_ends_behind_the_range_or_at_what_is_no_key():
    assert cut(Range("b", "", "ac", "baa"), "b", 3) == [Range("b", "", "ac", "baa")], "not at bb"
    long = "z" * (KEY_BYTES - 3)
    ends = [part.upto for part in cut(Range("b", "", f"{long}a", f"{long}b"), "ab🦀", 4)]
    assert ends == [f"{long}aa", f"{long}ab", f"{long}b"]


@given(
    st.sets(KEYS | st.text("abcd", min_size=1, max_size=3), min_size=2),
    st.text() | st.text("abcd"),
    st.booleans(),
    st.integers(1, 16),
)
def test_parts_are_the_range(found, characters, is_open, num_parts):
    after, *_, upto = sorted(found)
    whole = Range("bucket", "", after, None if is_open else upto)
    parts = cut(whole, "".join(sorted(set(characters))), num_parts)
    assert len(parts) <= num_parts
    assert (parts[0].after, parts[-1].upto) == (whole.after, whole.upto)
    for part, following in pairwise(parts):
        assert part.after < part.upto == following.after
        assert len(part.upto.encode()) <= KEY_BYTES


@contextmanager
def listed_from(made: list[str], page_keys: int) -> Iterator[list[Range]]:
    """Let keys be listed without a server, and give the ranges that are asked for."""
    asked: list[Range] = []

    def page(keys: Range) -> Page:
        asked.append(keys)
        first = bisect_right(made, keys.after) if keys.after else 0
        listed = made[first : first + page_keys]
        return Page(listed, {name: [""] * len(listed) for name in FACTS}, first + page_keys < len(made)).upto(keys.upto)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_listing, "_list", page)
        yield asked


@settings(max_examples=300, deadline=None)
@given(st.sets(KEYS, max_size=60), st.integers(1, 4))
def test_each_key_comes_once_whatever_the_names(found, page_keys):
    made = sorted(found)
    with listed_from(made, page_keys):
        assert sorted(keys("bucket", "")) == made


def name_of_time(number: int) -> str:
    return f"{datetime(2026, 1, 1) + timedelta(minutes=7 * number):cam/%Y/%m/%d/%H%M%S.jpg}"


@pytest.mark.parametrize(
    "name",
    [
        lambda number: f"image-{number:09d}.jpg",
        lambda number: f"{number}.jpg",
        lambda number: f"{md5(b'%d' % number).hexdigest()}.png",
        lambda number: "z" * 1000 + f"{number:05d}",
        lambda number: f"{'éü图a🦀'[number % 5]}/{number:07d}",
        lambda number: f"big/{number:06d}" if number % 10 else f"folder-{number:05d}/a.jpg",
        name_of_time,
    ],
)
def test_no_part_is_long_whatever_the_names(name: Callable[[int], str]):
    made = sorted(map(name, range(20_000)))
    with listed_from(made, 20) as asked:
        assert sorted(keys("bucket", "")) == made
    num_pages = Counter(part.upto for part in asked)
    assert max(num_pages.values()) < 300, "pages of 1000 that were listed one after the other"
    assert len(asked) < 2000


@pytest.mark.s3
@pytest.mark.usefixtures("small_pages")
def test_each_key_comes_once(s3):
    bucket = s3.bucket()
    made = sorted({f"{name}{number}.jpg" for name in NAMES for number in range(8)} | {"b/c/", "folder/"})
    s3.put(bucket, {key: b"" for key in made})
    assert sorted(keys(bucket, "")) == made
    for prefix in ("b", "b/", "b//", "b/c/", "é/", "none/", "0/"):
        assert sorted(keys(bucket, prefix)) == [key for key in made if key.startswith(prefix)], prefix


@pytest.mark.s3
@pytest.mark.usefixtures("small_pages")
def test_a_prefix_without_folders_is_split(s3, monkeypatch):
    bucket, asked = s3.bucket(), []
    made = [f"flat/{random.Random(number).randrange(10**9):09d}.jpg" for number in range(90)]
    s3.put(bucket, {key: b"" for key in made})
    ask = s3_listing._list
    monkeypatch.setattr(s3_listing, "_list", lambda part: asked.append(part) or ask(part))
    assert sorted(keys(bucket, "flat/")) == sorted(made)
    assert max(Counter(part.upto for part in asked).values()) < 15


@pytest.mark.s3
def test_a_small_prefix_takes_one_request(s3, monkeypatch):
    bucket, asked = s3.bucket(), []
    s3.put(bucket, {f"{number}/a.jpg": b"" for number in range(20)})
    ask = s3_listing._ask
    monkeypatch.setattr(s3_listing, "_ask", lambda request: asked.append(request) or ask(request))
    assert len(keys(bucket, "")) == 20
    assert asked == [{"Bucket": bucket, "Prefix": "", "MaxKeys": s3_listing.PAGE}]


@pytest.mark.s3
def test_answers_of_servers_have_the_usual_form(s3, monkeypatch):
    """So that botocore parses none of them, neither for the entries nor to see whether it is an error."""
    bucket, looked_at = s3.bucket(), []
    s3.put(bucket, {"é&<+ %.jpg": b"a"})
    monkeypatch.setattr(s3_listing, "page_of", None)
    monkeypatch.setattr(botocore.handlers, "_looks_like_special_case_error", lambda _, body: looked_at.append(body))
    assert keys(bucket, "") == ["é&<+ %.jpg"]
    assert looked_at == [b""]


class Scripted(BaseHTTPRequestHandler):
    """Gives one answer after the other; of each, only as many bytes as it says."""

    answers: list[tuple[str, int | None]]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        text, num_bytes = self.answers.pop(0)
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode()[:num_bytes])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted(s3, monkeypatch) -> Iterator[type[Scripted]]:
    monkeypatch.setattr(Scripted, "asked", [], raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_address[1]}")
        s3.forget()
        yield Scripted
        server.shutdown()
    monkeypatch.undo()
    s3.forget()


LAST = "<ListBucketResult><Contents><Key>a</Key></Contents><IsTruncated>false</IsTruncated></ListBucketResult>"


@pytest.mark.s3
def test_a_page_of_deleted_keys_alone_is_not_the_end(scripted):
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    scripted.answers = [(f"<ListBucketResult>{more}</ListBucketResult>", None), (LAST, None)]
    assert keys("bucket", "") == ["a"]
    assert "continuation-token=t" in scripted.asked[1]


@pytest.mark.s3
@pytest.mark.parametrize("num_bytes", [0, 1, 30])
def test_an_answer_that_is_cut_off_is_asked_for_again(num_bytes, scripted):
    scripted.answers = [(LAST, num_bytes), (LAST, None)]
    assert keys("bucket", "") == ["a"]
    assert len(scripted.asked) == 2
