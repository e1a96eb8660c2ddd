"""YOLO's layouts, as Ultralytics, Roboflow, CVAT and LabelImg write them."""

import pytest

from pipeline.labelled.dataset import read_labelled
from pipeline.labelled.layouts import source, yolo_paths
from pipeline.labelled.layouts.source import UnsizedError
from pipeline.labelled.record import DataError

YAML = "{}train: {}\nval: {}\nnc: 2\nnames: {}\n"


@pytest.mark.parametrize(
    ("root", "train", "val", "place"),
    [
        ("", "images/train", "images/val", "images/{split}/{name}"),
        ("", "../train/images", "../valid/images", "{other}/images/{name}"),  # Roboflow's, from elsewhere
        ("path: ../datasets/pets\n", "images/train", "images/val", "images/{split}/{name}"),
        ("path: /content/pets\n", "images/train/", "./images/val", "images/{split}/{name}"),
        ("path: data\n", "images/train", "images/val", "data/images/{split}/{name}"),
        ("path: {elsewhere}\n", "images/train", "images/val", "../elsewhere/images/{split}/{name}"),
        ("path: ../elsewhere\n", "images/train", "images/val", "../elsewhere/images/{split}/{name}"),
        ("", "[images/train, images/more]", "images/val", "images/{split}/{name}"),
    ],
)
@pytest.mark.parametrize("names", ["[cat, dog]", "{0: cat, 1: dog}"])
def test_a_data_yaml(root, train, val, place, names, files, found, expected, tmp_path):
    files.folder = files.folder / "pets"
    files.text("data.yaml", YAML.format(root.format(elsewhere=tmp_path / "elsewhere"), train, val, names))
    (files.folder / "images/more").mkdir(parents=True)
    for name, split, other in (("a", "train", "train"), ("c", "train", "train"), ("b", "val", "valid")):
        image = place.format(split=split, other=other, name=f"{name}.jpg")
        files.image(image)
        if name != "c":  # without a file, it has no objects
            files.text(image.replace("images/", "labels/").replace(".jpg", ".txt"), files.yolo(name))
    assert found("pets") == {"train": expected("a", "c"), "val": expected("b")}
    assert found("pets/data.yaml") == found("pets")


def test_a_copy_of_a_data_set_is_read_itself(files, found, tmp_path):
    """Not what its file names: the folder that it is a copy of, and those above."""
    for place in ("pets", "copy"):
        files.image(f"{place}/images/train/{place}.jpg")
        files.text(f"{place}/data.yaml", f"path: {tmp_path}/pets\ntrain: ../images/train\nnames: [cat, dog]\n")
    files.image("images/train/another.jpg")
    assert [found(place) for place in ("pets", "copy")] == [{"train": {"pets.jpg": []}}, {"train": {"copy.jpg": []}}]


def test_what_a_file_names_goes_before_guesses(files, found, tmp_path):
    files.text("project/pets.yaml", f"path: {tmp_path}/pets\ntrain: train/images\nnames: [cat, dog]\n")
    files.image("pets/train/images/a.jpg")
    files.image("project/images/another.jpg")
    assert found("project") == {"train": {"a.jpg": []}}


def test_nothing_is_above_a_bucket():
    assert yolo_paths.joined("s3://bucket/pets", "../../../x/./y/") == "s3://bucket/x/y"
    assert yolo_paths.joined("/a", "../../../b") == "/b"


def test_voc_beside_traces_of_yolo(files, found, expected):
    """A list of classes above, and a text beside each image."""
    for name in "ab":
        files.image(f"train/images/{name}.jpg")
        files.text(f"train/labels/{name}.xml", files.voc(name))
        files.image(f"valid/{name}.jpg")
        files.text(f"valid/{name}.xml", files.voc(name))
        files.text(f"valid/{name}.txt", "a caption")
    files.text("classes.txt", "cat\ndog\n")
    assert found() == {"train": expected("a", "b"), "valid": expected("a", "b")}


def test_lists_of_images(files, found, expected):
    files.text("pets.yml", YAML.format("", "lists/train.txt", "lists/val.txt", "[cat, dog]"))
    for name, split in (("a", "train"), ("b", "val")):
        files.image(f"lists/images/{name}.jpg")
        files.text(f"lists/labels/{name}.txt", files.yolo(name))
        files.text(f"lists/{split}.txt", f"./images/{name}.jpg\n\n")
    assert found() == {"train": expected("a"), "val": expected("b")}


def test_folders_of_splits_and_a_list_of_classes(files, found, expected):
    for name, split in (("a", "train"), ("b", "val")):
        files.image(f"images/{split}/{name}.jpg")
        files.text(f"labels/{split}/{name}.txt", files.yolo(name))
    files.text("classes.txt", "cat\ndog\n")
    assert found() == {"train": expected("a"), "val": expected("b")}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{split}/images/{name}.jpg", "{split}/labels/{name}.txt"),
        ("{split}/images/cam1/{name}.jpg", "{split}/labels/cam1/{name}.txt"),
        ("{split}/{name}.jpg", "{split}/labels/{name}.txt"),
        ("{split}/{name}.jpg", "{split}/{name}.txt"),
        ("obj_{split}_data/{name}.jpg", "obj_{split}_data/{name}.txt"),  # CVAT
    ],
)
def test_a_folder_per_split_and_a_list_of_classes_above(image, label, files, found, expected):
    for name, split in (("a", "train"), ("b", "valid"), ("c", "train")):
        files.image(image.format(name=name, split=split))
        files.text(label.format(name=name, split=split), files.yolo(name))
    files.text("obj.names", "cat\ndog\n")
    assert found() == {"train": expected("a", "c"), "valid": expected("b")}


def test_a_list_of_classes_in_each_split(files, found, expected):
    """As Roboflow exports for Darknet."""
    for name, split in (("a", "train"), ("b", "valid")):
        files.image(f"{split}/{name}.jpg")
        files.text(f"{split}/{name}.txt", files.yolo(name))
        files.text(f"{split}/_darknet.labels", "cat\ndog\n")
    assert found() == {"train": expected("a"), "valid": expected("b")}


@pytest.mark.parametrize(
    ("image", "label", "classes"),
    [
        ("images/{}.jpg", "labels/{}.txt", "classes.txt"),
        ("images/{}.jpg", "labels/{}.txt", "labels/classes.txt"),
        ("{}.jpg", "{}.txt", "classes.txt"),  # LabelImg
        ("{}.jpg", "labels/{}.txt", "labels/classes.txt"),
        ("obj_train_data/{}.jpg", "obj_train_data/{}.txt", "obj.names"),  # CVAT
    ],
)
def test_one_folder_with_a_list_of_classes_is_divided(image, label, classes, files, found, expected):
    for name in "abc":
        files.image(image.format(name))
        files.text(label.format(name), files.yolo(name))
    files.text(classes, "cat\r\ndog\r\n")
    splits = found()
    assert list(splits) == ["train", "val"]
    assert (len(splits["train"]), len(splits["val"])) == (2, 1)
    assert splits["train"] | splits["val"] == expected("a", "b", "c")


def test_splits_that_an_export_names_and_has_not_written(files, found, caplog):
    """Roboflow names all three. The rest is divided, as if they weren't named."""
    caplog.set_level("INFO")
    for name in "abcdef":
        files.image(f"train/images/{name}.jpg")
    files.text("data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat, dog]\n")
    assert list(found()) == ["train"]
    assert "data.yaml: val is left out: ../valid/images is not there" in caplog.text
    assert "none of 6 images has a file of labels: looked for " in caplog.text
    (files.folder / "train/labels").mkdir()
    assert sum(len(read_labelled([str(files.folder)], split, beside=["val"])) for split in ("train", "val")) == 6


def test_of_keypoints_the_box_is_taken(files, found):
    """Behind it are the points, with or without whether they can be seen."""
    files.image("images/train/a.jpg")
    files.text("labels/train/a.txt", "0 0.5 0.5 0.2 0.2 0.1 0.1 2 0.9 0.9 0\n1 0.5 0.5 0.4 0.4 0 0\n")
    files.text("data.yaml", "train: images/train\nkpt_shape: [2, 3]\nnames: [cat, dog]\n")
    (image,) = read_labelled([str(files.folder)], "train")
    assert image.boxes_xyxy.round(3).tolist() == [[16, 8, 24, 12], [12, 6, 28, 14]]


def test_labels_in_another_encoding_are_named(files, found):
    files.image("images/train/a.jpg")
    (files.folder / "labels/train").mkdir(parents=True)
    (files.folder / "labels/train/a.txt").write_bytes("0 é".encode("latin-1"))
    files.text("data.yaml", "train: images/train\nnames: [cat, dog]\n")
    with pytest.raises(DataError, match=r"a\.txt: can't be read .*; save it as UTF-8"):
        found()
    broken: list[DataError] = []
    assert found(on_broken=broken.append) == {"train": {}}
    assert len(broken) == 1


def test_a_split_of_which_a_part_is_gone_is_an_error(files, found):
    for name in ("train", "v1"):
        files.image(f"images/{name}/a.jpg")
    files.text("data.yaml", "train: images/train\nval: [images/v1, images/v2]\nnames: [cat, dog]\n")
    with pytest.raises(DataError, match="'images/v2' of its YAML file is not there"):
        found()


def test_outlines_scores_and_turned_images(files, found):
    """An outline has the box around it. Shares are of the picture as a viewer shows it."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    files.image("images/train/a.jpg", exif=exif)
    files.text("labels/train/a.txt", "0 0.5 0.5 1 1 0.9\n1 0.1 0.1 0.4 0.3 0.2 0.5\n")
    files.text("data.yaml", "train: images/train\nnames: [cat, dog]\n")
    (image,) = read_labelled([str(files.folder)], "train")
    assert image.size_px == (20, 40)
    assert image.boxes_xyxy.round(3).tolist() == [[0, 0, 20, 40], [2, 4, 8, 20]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 1", r"a\.txt: line 2: 4 numbers; a box has 5"),
        ("2 0.5 0.5 1 1", r"a\.txt: line 2: class 2 of 2"),
        ("0.5 0.5 0.5 1 1", "class 0.5 is no whole number"),
        ("cat 0.5 0.5 1 1", "could not convert string"),
        ("0 nan 0.5 1 1", "a coordinate is no number"),
    ],
)
def test_a_broken_line_is_named_and_the_others_are_read(line, message, files, found, expected):
    files.image("images/train/a.jpg")
    files.text("labels/train/a.txt", files.yolo("a").replace("\n", f"\n{line}\n"))
    files.text("data.yaml", "train: images/train\nnames: [cat, dog]\n")
    with pytest.raises(DataError, match=message):
        found()
    broken: list[DataError] = []
    assert found(on_broken=broken.append) == {"train": expected("a")}
    assert len(broken) == 1


@pytest.mark.parametrize("is_passing", [False, True])
def test_an_image_whose_size_is_unknown_is_named(is_passing, files, found, monkeypatch):
    """Who reads on can tell what stays so from what may pass."""
    files.text("images/train/a.jpg", "no picture")
    files.text("data.yaml", "train: images/train\nnames: [cat, dog]\n")
    if is_passing:
        monkeypatch.setattr(source, "read_size", unavailable)
    with pytest.raises(DataError, match=r"a\.jpg: its size can't be read, of which boxes are shares") as error:
        found()
    assert isinstance(error.value, UnsizedError) != is_passing


def unavailable(content: bytes) -> None:
    raise OSError("try later")


def test_a_yaml_file_of_something_else_is_left_alone(files, found, expected):
    for name in "ac":
        files.image(f"{name}.jpg")
        files.text(f"{name}.xml", files.voc(name))
    files.text("chart.yaml", "{{ template }}: [")
    assert found()["train"] | found()["val"] == expected("a", "c")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images/train\nnames: 3\n", "names is 3; give a list"),
        ("train: images/train\nnames: {cat: 0}\n", "give numbers with names"),
        (
            "train: images/none\nnames: [cat]\n",
            "'images/none' of its YAML file is not there; looked for .*/images/none",
        ),
        ("train: [\n", r"data\.yaml: can't be read"),
        ("train: images/train\nnames: [[cat]]\n", "names has a list in it"),
        ("train: [[images/train]]\nnames: [cat]\n", "names a split by something else than paths"),
    ],
)
def test_a_data_yaml_that_is_wrong(yaml, message, files, found):
    files.image("images/train/a.jpg")
    files.text("data.yaml", yaml)
    with pytest.raises(DataError, match=message):
        found()
