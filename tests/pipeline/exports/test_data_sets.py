"""The formats of data sets, as they are read by the libraries that define them, and by our own training."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.errors import SettingError
from pipeline.exports.voc import _whole_pixels
from pipeline.labelled.dataset import read_labelled

BOXES = {
    ("a.jpg", "cat"): (10, 10, 20, 20), ("a.png", "cat"): (1, 2, 30, 20), ("a.png", "dog"): (0, 0, 40, 30),
    ("b.png", "dog"): (4.25, 5.5, 6, 7),
}  # fmt: skip
"""The boxes by the end of their images' URIs and their class."""


def refuse(error: Exception) -> None:
    raise error


def test_coco(exported, folder, tmp_path):
    from pycocotools.coco import COCO

    done = exported("coco")
    assert (done.rows, done.images) == (4, 4)
    found = COCO(tmp_path / "out/annotations/instances_found.json")
    assert {category["id"]: category["name"] for category in found.cats.values()} == {1: "cat", 3: "dog"}
    assert {image["file_name"] for image in found.imgs.values()} == {"a.jpg", "a.png", "deep/b.png", "empty.png"}
    assert {image["uri"] for image in found.imgs.values()} == {
        str(folder / image["file_name"]) for image in found.imgs.values()
    }
    boxes = {}
    for box in found.anns.values():
        image = found.imgs[box["image_id"]]
        x, y, width, height = box["bbox"]
        boxes[image["file_name"].rpartition("/")[2], found.cats[box["category_id"]]["name"]] = (
            x,
            y,
            x + width,
            y + height,
        )
        assert box["area"] == pytest.approx(width * height, abs=0.01)
    assert boxes == BOXES
    results = found.loadRes(str(tmp_path / "out/results.json"))
    assert sorted(result["score"] for result in results.anns.values()) == [0.25, 0.5, 0.75, 0.9]


def test_coco_results_are_those_of_the_evaluation(exported, tmp_path):
    """Results that are compared with themselves find everything."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    exported("coco")
    truth = COCO(tmp_path / "out/annotations/instances_found.json")
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "out/results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def annotations(tmp_path, images: list[str], names=("dog", "cat")) -> str:
    file = {
        "images": [{"id": 100 + number, "file_name": name} for number, name in enumerate(images)],
        "annotations": [],
        "categories": [{"id": 17 + number, "name": name} for number, name in enumerate(names)],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(file))
    return str(path)


def test_coco_results_with_the_ids_of_annotations(exported, tmp_path):
    done = exported("coco", coco_ids=annotations(tmp_path, ["deep/b.png", "pictures/a.png", "other/empty.png"]))
    assert (done.rows, done.images) == (3, 2)
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert {(box["image_id"], box["category_id"]) for box in found} == {(101, 18), (101, 17), (100, 17)}
    assert not (tmp_path / "out/annotations").exists()


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        (["a.png"], ("cat",), "has no category 'dog'"),
        (["a.png", "pictures/a.png"], ("cat", "dog"), "lists several images that may be"),
        (["c.png"], ("cat", "dog"), "lists none of the selected images"),
    ],
)
def test_coco_ids_that_do_not_fit(images, names, message, exported, tmp_path):
    with pytest.raises(SettingError, match=message):
        exported("coco", coco_ids=annotations(tmp_path, images, names))


def test_coco_ids_may_lack_what_is_not_exported(exported, tmp_path):
    """Classes, and boxes, as in the file of COCO's test images."""
    path = annotations(tmp_path, ["pictures/a.png"], ("cat",))
    listed = json.loads((tmp_path / "truth.json").read_text())
    listed.pop("annotations", None)
    (tmp_path / "truth.json").write_text(json.dumps(listed))
    assert exported("coco", coco_ids=path, class_name=("cat",)).rows == 1


def test_one_id_is_that_of_one_image(table, exported, rows, folder, tmp_path):
    table.append(rows.table(rows.ok(str(folder / "deep/a.png"))))
    with pytest.raises(
        SettingError, match=r"lists one image that may be '.*/pictures/a.png' or '.*/deep/a.png'; choose by where"
    ):
        exported("coco", coco_ids=annotations(tmp_path, ["a.png"]))


def test_no_coco_annotations(exported, folder):
    for place in (folder / "a.png", folder / "none.json"):
        with pytest.raises(SettingError, match="is not COCO's annotations"):
            exported("coco", coco_ids=str(place))


@pytest.mark.parametrize(("kind", "split"), [("coco", "found"), ("voc", "found"), ("yolo", "train"), ("cvat", "all")])
def test_a_training_reads_what_was_exported(kind, split, exported, tmp_path):
    exported(kind, copy_images=True)
    url = str(tmp_path / "out")
    found = [
        image for part in (("train", "val") if split == "all" else (split,)) for image in read_labelled([url], part)
    ]
    boxes = {}
    for image in found:
        with Image.open(image.uri) as picture:
            assert image.size_px == picture.size == (40, 30)
        for name, box in zip(image.class_names, image.boxes_xyxy.tolist(), strict=True):
            boxes[image.uri.rpartition("/")[2], name] = tuple(box)
    assert len(found) == 4
    expected = {("a.jpg", "cat"): BOXES["a.jpg", "cat"]}
    expected |= {("a-2.png", name): BOXES["a.png", name] for name in ("cat", "dog")}
    expected["deep__b.png", "dog"] = (4, 5, 6, 7) if kind == "voc" else (4.25, 5.5, 6, 7)  # VOC has whole pixels
    assert {key: pytest.approx(box, abs=1e-4) for key, box in boxes.items()} == expected


def of_supervision(data) -> dict[tuple[str, str], tuple[float, ...]]:
    boxes = {}
    for path, image, found in data:
        assert image.shape == (30, 40, 3)
        for box, label in zip(found.xyxy.tolist(), found.class_id.tolist(), strict=True):
            boxes[path.rpartition("/")[2], data.classes[label]] = tuple(box)
    return boxes


@pytest.mark.filterwarnings("ignore:OpenCV")
def test_yolo(exported, tmp_path):
    import supervision

    exported("yolo", copy_images=True)
    out = tmp_path / "out"
    names = yaml.safe_load((out / "data.yaml").read_text())["names"]
    assert names == {0: "cat", 1: "class 2", 2: "dog"}
    data = supervision.DetectionDataset.from_yolo(str(out / "images"), str(out / "labels"), str(out / "data.yaml"))
    assert len(data) == 4
    found = of_supervision(data)
    expected = {name.replace("b.png", "deep__b.png").replace("a.png", "a-2.png"): None for name, _ in BOXES}
    assert {name for name, _ in found} == set(expected)
    assert found["a-2.png", "cat"] == pytest.approx((1, 2, 30, 20), abs=1e-3)
    assert found["deep__b.png", "dog"] == pytest.approx((4.25, 5.5, 6, 7), abs=1e-3)
    assert (out / "labels/empty.txt").read_bytes() == b""


@pytest.mark.filterwarnings("ignore:OpenCV")
def test_voc(exported, tmp_path):
    import supervision

    exported("voc", copy_images=True)
    out = tmp_path / "out"
    data = supervision.DetectionDataset.from_pascal_voc(str(out / "JPEGImages"), str(out / "Annotations"))
    assert len(data) == 4
    assert {name for name, _ in of_supervision(data)} == {"a.jpg", "a-2.png", "deep__b.png"}
    assert (out / "ImageSets/Main/found.txt").read_text().split() == ["a", "a-2", "deep__b", "empty"]


def test_fiftyone_has_the_layout_that_its_documentation_describes(exported, tmp_path, folder):
    exported("fiftyone", copy_images=True)
    labels = json.loads((tmp_path / "out/labels.json").read_text())
    assert labels["classes"] == ["cat", "dog"]
    assert set(labels["labels"]) == {"a", "a-2", "deep__b", "empty"}
    (box,) = labels["labels"]["a"]
    assert (box["label"], box["confidence"]) == ("cat", 0.75)
    assert np.allclose(box["bounding_box"], (10 / 40, 10 / 30, 10 / 40, 10 / 30))
    manifest = json.loads((tmp_path / "out/data.json").read_text())
    assert manifest["deep__b"] == str(folder / "deep/b.png")


def test_fiftyone_itself_reads_it(exported, tmp_path):
    importers = pytest.importorskip("fiftyone.utils.data", reason="fiftyone is not installed")
    exported("fiftyone", copy_images=True)
    importer = importers.FiftyOneImageDetectionDatasetImporter(dataset_dir=str(tmp_path / "out"))
    importer.setup()
    assert len(importer) == 4


@pytest.mark.parametrize(
    ("box", "expected"),
    [((0, 0, 40, 30), [1, 1, 40, 30]), ((0.4, 0.6, 1.2, 9.5), [1, 1, 2, 10]), ((0, 29, 0.5, 30), [1, 29, 2, 30])],
)
def test_voc_has_every_pixel_that_a_box_touches(box, expected):
    assert _whole_pixels(box) == expected


def test_label_studio(exported, tmp_path, folder):
    """A task has what Label Studio's documentation of predictions describes."""
    exported("label-studio", copy_images=True, min_score=0.3)
    tasks = {task["data"]["uri"]: task for task in json.loads((tmp_path / "out/tasks.json").read_text())}
    assert len(tasks) == 4
    task = tasks[str(folder / "a.png")]
    assert task["data"]["image"] == "/data/local-files/?d=images/a-2.png"
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("tiny m1", 0.5)
    (box,) = prediction["result"]
    value = box["value"]
    assert (box["from_name"], box["to_name"], box["type"], value["rectanglelabels"]) == (
        "label",
        "image",
        "rectanglelabels",
        ["cat"],
    )
    assert [value[side] for side in ("x", "y", "width", "height")] == pytest.approx([2.5, 200 / 30, 72.5, 60])
    assert (box["original_width"], box["original_height"]) == (40, 30)
    interface = ElementTree.parse(tmp_path / "out/interface.xml")
    assert [label.get("value") for label in interface.iter("Label")] == ["cat", "dog"]
    assert interface.find("Image").get("value") == "$image"


def test_label_studio_is_asked_for_any_name(table, exported, rows, folder, tmp_path):
    """What is no letter would end the address."""
    table.append(rows.table(rows.ok(str(folder / "R&D +#1.png"))))
    exported("label-studio", copy_images=True)
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    images = {task["data"]["uri"]: task["data"]["image"] for task in tasks}
    assert images[str(folder / "R&D +#1.png")] == "/data/local-files/?d=images/R%26D%20%2B%231.png"


def test_label_studio_without_copies_names_the_images_themselves(exported, tmp_path, folder):
    exported("label-studio")
    images = {task["data"]["image"] for task in json.loads((tmp_path / "out/tasks.json").read_text())}
    assert images == {str(folder / name) for name in ("a.png", "a.jpg", "deep/b.png", "empty.png")}


@pytest.mark.parametrize("kind", ["cvat", "label-studio", "voc"])
def test_control_characters_are_left_out_of_xml(kind, table, exported, rows, folder, tmp_path):
    """It has none; in Label Studio the boxes' labels must be those of the interface."""
    table.append(rows.table(rows.ok(str(folder / "x.png"), **rows.boxes((7, "an\x01\ufffft", 0.5, 1, 2, 30, 20)))))
    exported(kind)
    written = list((tmp_path / "out").rglob("*.xml"))
    assert any("ant" in file.read_text() for file in written)
    assert all(ElementTree.parse(file) for file in written)
    if kind == "label-studio":
        assert '["ant"]' in (tmp_path / "out/tasks.json").read_text()


def test_cvat(exported, tmp_path):
    exported("cvat", copy_images=True)
    root = ElementTree.parse(tmp_path / "out/annotations.xml").getroot()
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    assert [label.findtext("name") for label in root.iter("label")] == ["cat", "dog"]
    images = {image.get("name"): image for image in root.iter("image")}
    assert sorted(images) == ["a-2.png", "a.jpg", "deep__b.png", "empty.png"]
    assert [(image.get("width"), image.get("height")) for image in images.values()] == [("40", "30")] * 4
    boxes = {
        box.get("label"): [float(box.get(side)) for side in ("xtl", "ytl", "xbr", "ybr")] for box in images["a-2.png"]
    }
    assert boxes == {"cat": [1, 2, 30, 20], "dog": [0, 0, 40, 30]}
    assert len(images["empty.png"]) == 0
