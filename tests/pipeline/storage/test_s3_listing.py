"""Against a server: what is cut, and that each key comes once however it is cut."""

import pytest

from pipeline.storage import s3_listing
from pipeline.storage.s3_listing import Range, cut, walk

pytestmark = pytest.mark.s3

NAMES = ["", "a", "b", "b/", "b//", "b/c/", "b/c/d/", "é/", "é/ü ", "x+y/", "x y/", "z~/", "0/1/2/3/"]


def keys(bucket: str, prefix: str) -> list[str]:
    return [entry["Key"] for page in walk(bucket, prefix) for entry in page]


@pytest.fixture
def small_pages(monkeypatch) -> None:
    monkeypatch.setattr(s3_listing, "PAGE", 3)


@pytest.mark.usefixtures("small_pages")
def test_each_key_comes_once(s3):
    bucket = s3.bucket()
    made = sorted({f"{name}{number}.jpg" for name in NAMES for number in range(8)} | {"b/c/", "folder/"})
    s3.put(bucket, {key: b"" for key in made})
    assert sorted(keys(bucket, "")) == made
    for prefix in ("b", "b/", "b//", "b/c/", "é/", "none/", "0/"):
        assert sorted(keys(bucket, prefix)) == [key for key in made if key.startswith(prefix)], prefix


@pytest.mark.usefixtures("small_pages")
def test_a_range_is_cut_at_the_highest_folders_that_are_left(s3):
    bucket = s3.bucket()
    s3.put(bucket, {f"p/2026/{month}/{day}.jpg": b"" for month in range(3) for day in range(4)})
    whole = Range(bucket, "p/", after="p/2026/0/0.jpg")
    assert cut(whole, 16) == [
        Range(bucket, "p/", "p/2026/0/0.jpg", "p/2026/1/"),
        Range(bucket, "p/", "p/2026/1/", "p/2026/2/"),
        Range(bucket, "p/", "p/2026/2/", None),
    ]
    assert cut(whole, 2) == [
        Range(bucket, "p/", "p/2026/0/0.jpg", "p/2026/1/"),
        Range(bucket, "p/", "p/2026/1/", None),
    ]
    in_one_folder = Range(bucket, "p/", "p/2026/0/0.jpg", "p/2026/0/9.jpg")
    assert cut(in_one_folder, 16) == [Range(bucket, "p/", "p/2026/0/0.jpg", "p/2026/0/9.jpg", is_flat=True)]


def test_a_small_prefix_takes_one_request(s3, monkeypatch):
    bucket, asked = s3.bucket(), []
    s3.put(bucket, {f"{number}/a.jpg": b"" for number in range(20)})
    ask = s3_listing._list
    monkeypatch.setattr(s3_listing, "_list", lambda *given, **more: asked.append(given) or ask(*given, **more))
    assert len(keys(bucket, "")) == 20
    assert asked == [(bucket, "", "")]
