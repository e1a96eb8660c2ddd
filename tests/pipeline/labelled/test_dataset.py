import logging

import fsspec
import pytest

from pipeline.labelled.dataset import find_splits, read_clean, read_labelled
from pipeline.labelled.image_facts import look_at
from pipeline.labelled.record import DataError


def names(images) -> list[str]:
    return [image.uri.rpartition("/")[2] for image in images]


def test_several_folders_of_any_layout(labelled, tmp_path):
    labelled.voc(tmp_path / "VOC2007", a="", b="")
    labelled.coco(tmp_path / "coco", names=("c.jpg",))
    assert names(read_labelled([str(tmp_path / "coco"), f"{tmp_path}/VOC2007/"], "train")) == [
        "c.jpg",
        "a.jpg",
        "b.jpg",
    ]


def test_a_devkit_holds_several_years(labelled, tmp_path, caplog):
    labelled.voc(tmp_path / "VOC2012", a="")
    labelled.voc(tmp_path / "VOC2007", b="")
    labelled.voc(tmp_path / "VOC2007", "test", c="")
    (tmp_path / "VOCcode").mkdir()
    assert names(read_labelled([str(tmp_path)], "train")) == ["b.jpg", "a.jpg"]
    with caplog.at_level(logging.INFO):
        assert names(read_labelled([str(tmp_path)], "test")) == ["c.jpg"]
    assert f"{tmp_path}/VOC2012 has no split 'test'" in caplog.text


def test_file_urls(labelled, tmp_path):
    labelled.voc(tmp_path, a="")
    (found,) = read_labelled([f"file://{tmp_path}"], "train")
    assert found.uri == f"{tmp_path}/JPEGImages/a.jpg"


def test_any_url_of_fsspec(labelled, tmp_path):
    labelled.voc(tmp_path / "VOC2007", a="")
    labelled.coco(tmp_path / "coco", names=("c.jpg",))
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/labelled", recursive=True)
    urls = ["memory://labelled/VOC2007", "memory://labelled/coco"]
    uris = [image.uri for image in read_labelled(urls, "train")]
    assert uris == ["memory://labelled/VOC2007/JPEGImages/a.jpg", "memory://labelled/coco/train/c.jpg"]
    assert [facts.size_px for _, facts in look_at(uris)] == [(20, 10)] * 2
    memory.rm("/labelled", recursive=True)


def test_a_split_that_is_nowhere_is_named(labelled, tmp_path):
    labelled.voc(tmp_path / "voc", a="")
    labelled.coco(tmp_path / "coco")
    with pytest.raises(
        DataError, match=r"no data has the split 'test': .*voc has train; .*coco has train; name one that it has"
    ):
        read_labelled([str(tmp_path / "voc"), str(tmp_path / "coco")], "test")


def test_without_val_it_is_test_or_a_part_of_train(labelled, tmp_path, caplog):
    for split in ("train", "test"):
        labelled.voc(tmp_path / "two", split=split, **{f"{split}{number}": "" for number in range(10)})
    labelled.voc(tmp_path / "one", **{f"{number}": "" for number in range(10)})
    with caplog.at_level(logging.INFO):
        both = read_labelled([str(tmp_path / "two")], "val"), read_labelled([str(tmp_path / "two")], "train")
    assert [names(images)[0] for images in both] == ["test0.jpg", "train0.jpg"]
    assert caplog.messages[0] == f"{tmp_path}/two: val (which is test, as there is no val) in the layout of Pascal VOC"
    one, splits = [str(tmp_path / "one")], ("train", "val")
    parts = [names(read_labelled(one, split, beside=splits)) for split in splits]
    assert (len(parts[0]), len(parts[1]), len({*parts[0], *parts[1]})) == (8, 2, 10)
    assert len(read_labelled(one, "train")) == 10
    labelled.voc(tmp_path / "other", split="val", z="")
    beside = [str(tmp_path / "one"), str(tmp_path / "other")]
    assert [len(read_labelled(beside, split, beside=splits)) for split in splits] == [10, 1]


@pytest.mark.parametrize("content", ["", "annotations", "VOC2007"])
def test_what_is_no_data_set_says_where_layouts_are_shown(content, tmp_path):
    (tmp_path / content).mkdir(exist_ok=True)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DataError, match=r"is no data set that can be read: .*docs/data\.md shows each layout"):
        find_splits(str(tmp_path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "the folder is empty"),
        (("a.txt", "b"), "found a.txt, b"),
        (("a.jpg", "b.png"), r"images alone \(a.jpg\); name the folder"),
        (("images/a.jpg", "labels/a.txt"), r"YOLO's layout without names of classes \(labels\); name them"),
        (("data.json", "1.jpg"), r"JSON of another kind \(data.json\); export it as COCO"),
        (("boxes.csv", "1.jpg"), r"a table of another kind \(boxes.csv\)"),
        (("Annotations", "JPEGImages/a.jpg"), "VOC's folders without annotations"),
        (("train/data.json", "train/1.jpg", "README.txt"), "JSON of another kind"),
        (("data.zip",), r"an archive \(data.zip\); unpack it"),
    ],
)
def test_what_is_no_data_set_says_what_was_found_and_what_to_do(names, message, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch() if "." in name else (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=message):
        find_splits(str(tmp_path))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere' can't be read"):
        find_splits(str(tmp_path / "nowhere"))


def test_a_broken_annotation_stops_the_reading_or_is_told(labelled, tmp_path):
    labelled.voc(tmp_path, a="", b="")
    (tmp_path / "Annotations/a.xml").write_text("no XML")
    with pytest.raises(DataError, match=r"a\.xml: not a VOC annotation"):
        read_labelled([str(tmp_path)], "train")
    broken = []
    assert names(read_labelled([str(tmp_path)], "train", broken.append)) == ["b.jpg"]
    assert len(broken) == 1


def test_what_is_left_out_is_said(labelled, tmp_path, caplog):
    labelled.voc(tmp_path, a=labelled.thing("cat", 3, 3, 3, 8) + labelled.thing("cat", 3, 3, 99, 8), b="")
    with caplog.at_level(logging.INFO):
        images = read_clean([str(tmp_path)], "train")
    assert [image.boxes_xyxy.tolist() for image in images] == [[[2, 2, 20, 8]], []]
    assert caplog.messages == [
        f"{tmp_path}: train in the layout of Pascal VOC",
        "train: 2 images, 1 objects; 1 boxes without area left out; 1 boxes that reach over the border clipped",
    ]


@pytest.mark.s3
def test_both_layouts_on_s3(labelled, upload, tmp_path):
    labelled.voc(tmp_path / "VOC2007", a=labelled.thing("cat", 1, 1, 5, 5))
    labelled.coco(tmp_path / "coco", {"image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5]}, names=("deep/c.jpg",))
    url = upload(tmp_path)
    voc, coco = read_labelled([url, f"{url}/coco"], "train")
    assert (voc.uri, voc.class_names) == (f"{url}/VOC2007/JPEGImages/a.jpg", ("cat",))
    assert (coco.uri, coco.class_names) == (f"{url}/coco/train/deep/c.jpg", ("dog",))
    with pytest.raises(DataError, match="no data has the split 'test'"):
        read_labelled([url], "test")
    with pytest.raises(DataError, match="can't be read"):
        read_labelled(["s3://no-such-bucket/data"], "train")
