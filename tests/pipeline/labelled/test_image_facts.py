import hashlib

import pytest
from PIL import Image

from pipeline.labelled.image_facts import NUM_READ_THREADS, ImageFacts, look_at


@pytest.fixture
def picture(tmp_path):
    """Write a red picture of 20×10, with an orientation."""

    def picture(name: str, orientation: int = 1) -> str:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (20, 10), "red").save(tmp_path / name, exif=exif)
        return str(tmp_path / name)

    return picture


def test_sizes_are_upright(picture):
    plain, turned = picture("a.jpg"), picture("b.jpg", 6)
    facts = dict(look_at([plain, turned]))
    assert (facts[plain].size_px, facts[plain].orientation, facts[plain].stored_size_px) == ((20, 10), 1, (20, 10))
    assert (facts[turned].size_px, facts[turned].orientation, facts[turned].stored_size_px) == ((10, 20), 6, (20, 10))
    assert not facts[plain].error


def test_the_digest_is_the_files(picture, tmp_path):
    ((_, facts),) = look_at([picture("a.jpg")])
    assert facts.sha256 == hashlib.sha256((tmp_path / "a.jpg").read_bytes()).hexdigest()


def test_what_can_not_be_used_says_why(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8")
    facts = [facts for _, facts in look_at([str(tmp_path / "gone.jpg"), str(tmp_path / "broken.jpg")])]
    assert facts[0].is_missing
    assert facts[0].error.startswith("FileNotFoundError: ")
    assert (facts[0].size_px, facts[0].sha256, facts[0].stored_size_px) == (None, "", None)
    assert (facts[1].is_missing, bool(facts[1].error), bool(facts[1].sha256)) == (False, True, True)


def test_each_image_once_in_order(picture):
    """More than are read at once."""
    uris = [picture(f"{number}.jpg") for number in range(NUM_READ_THREADS + 10)]
    assert [uri for uri, _ in look_at(uris + uris[:5])] == uris


def test_nothing_is_known_of_nothing():
    assert ImageFacts().stored_size_px is None


@pytest.mark.s3
def test_images_on_s3(picture, upload, tmp_path):
    picture("a.jpg")
    url = upload(tmp_path)
    facts = [facts for _, facts in look_at([f"{url}/a.jpg", f"{url}/gone.jpg"])]
    assert (facts[0].size_px, facts[1].is_missing) == ((20, 10), True)
