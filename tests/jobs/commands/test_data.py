"""What the command hands on: classes, default boxes, and the page."""

import base64
import io
import json
import re

import pytest
from PIL import Image

from jobs.commands.data import check
from jobs.demo import PACKAGE
from jobs.specs.load import load_settings
from jobs.text.data import describe_report
from pipeline.errors import SettingError
from pipeline.labelled.settings import DataCheckSettings


@pytest.fixture
def data(labelled, tmp_path) -> str:
    """One image with a box that is clipped, of a class with a name that HTML would take for its own."""
    return str(labelled.voc(tmp_path / "data", a=labelled.thing("&lt;b&gt;ring", 3, 3, 30, 8)))


def kinds(report) -> dict[str, int]:
    return {finding["kind"]: finding["count"] for finding in report["findings"]}


def test_the_report_is_json_and_text(data):
    report = check(DataCheckSettings(data=(data,), split=("train",)))
    assert json.loads(json.dumps(report)) == report
    assert report["is_sound"] is True
    assert report["findings"][0] == {
        "kind": "clipped", "level": "note", "split": "train", "count": 1, "examples": [f"{data}/JPEGImages/a.jpg"],
    }  # fmt: skip
    assert report["splits"]["train"]["class_counts"] == {"<b>ring": 1}
    text = describe_report(report)
    assert "train: 1 images, 1 objects (<b>ring 1)" in text
    assert "note: train: boxes that reach over the border, clipped: 1" in text
    assert text.endswith("nothing that would spoil a training")


def test_classes_of_a_model_or_a_file(data, tmp_path):
    assert kinds(check(DataCheckSettings(data=(data,), split=("train",), model=str(PACKAGE))))["unknown_class"] == 1
    for name, expected in (("<b>ring", None), ("ring", 1)):
        (tmp_path / "names.txt").write_text(f"{name}\n")
        settings = DataCheckSettings(data=(data,), split=("train",), class_names=str(tmp_path / "names.txt"))
        assert kinds(check(settings)).get("unknown_class") == expected


def test_the_architecture_decides_on_sizes(data):
    of_512 = check(DataCheckSettings(data=(data,), split=("train",), architecture="ssd512_vgg16"))
    assert of_512["splits"]["train"]["sizes"]["shorter_side_px"]["max"] == pytest.approx(0.6 * 512)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": "x", "architecture": "ssd512_vgg16"}, "give it without class_names and architecture"),
        ({"split": ("train", "train")}, "split: .*give each once"),
        ({"model": "/nowhere"}, "model '/nowhere' can't be read"),
        ({"output": "/dev/null/page.html"}, "output '/dev/null/page.html' can't be written"),
        ({"split": ("test",)}, "no data has the split 'test'"),
    ],
)
def test_wrong_settings(data, flags, message):
    with pytest.raises(SettingError, match=message):
        check(load_settings(DataCheckSettings, None, {"data": (data,)} | flags))


def test_the_page_stands_alone(data, tmp_path):
    report = check(DataCheckSettings(data=(data,), split=("train",), output=str(tmp_path / "out/page.html")))
    page = (tmp_path / "out/page.html").read_text()
    assert report["output"] == str(tmp_path / "out/page.html")
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing is loaded"
    assert "<b>ring" not in page
    assert "&lt;b&gt;ring" in page
    assert "Nothing here would spoil a training." in page
    (encoded,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        assert max(picture.size) == 280


def test_the_page_of_images_that_can_not_be_shown(labelled, data, tmp_path):
    (tmp_path / "data/JPEGImages/a.jpg").write_bytes(b"no image")
    check(DataCheckSettings(data=(data,), split=("train",), output=str(tmp_path / "page.html")))
    page = (tmp_path / "page.html").read_text()
    assert "The errors below would spoil a training." in page
    assert "of no known image format" in page
    assert "<img" not in page


def test_a_page_stays_where_the_check_fails(data, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("of last night")
    with pytest.raises(SettingError, match="no data has the split"):
        check(DataCheckSettings(data=(data,), split=("none",), output=str(page)))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["page.html"]
    assert page.read_text() == "of last night"
