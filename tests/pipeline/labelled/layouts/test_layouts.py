"""Each layout that people have, and which one a folder is in. All have the same three pictures."""

import os
from pathlib import Path

import pytest

from pipeline.labelled.dataset import divided, find_splits, read_labelled
from pipeline.labelled.layouts.source import Source, new_image
from pipeline.labelled.record import DataError


def labelme(files, name: str, folder: str = "", **more: object) -> None:
    files.image(f"{folder}{name}.jpg")
    shapes = [
        {"label": label, "points": [box[:2], box[2:]], "shape_type": "rectangle"} for _, label, box in files.boxes[name]
    ]
    content = {"imagePath": f"C:\\pictures\\{name}.jpg", "imageWidth": 40, "imageHeight": 20, "shapes": shapes}
    files.json(f"{folder}{name}.json", content | {"imageData": "aGk="} | more)


def cvat(files, *names: str) -> str:
    images = ""
    for number, name in enumerate(names):
        boxes = "".join(
            f'<box label="{label}" xtl="{x}" ytl="{y}" xbr="{right}" ybr="{bottom}" occluded="0"/>'
            for _, label, (x, y, right, bottom) in files.boxes[name]
        )
        images += f'<image id="{number}" name="{name}.jpg" width="40" height="20">{boxes}</image>'
    return f"<annotations><version>1.1</version>{images}</annotations>"


def csv_of(files, *names: str) -> str:
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name in names:
        lines += [f"{name}.jpg,40,20,{label},{','.join(map(str, box))}" for _, label, box in files.boxes[name]] or [
            f"{name}.jpg,40,20,,,,,"
        ]
    return "\n".join(lines)


def write(layout: str, files) -> None:
    """Write the pictures in a layout without splits."""
    images = {"CVAT": "images/", "VOC": "images/", "VOC elsewhere": "Photos/", "VOC's own folders": "JPEGImages/"}.get(
        layout, ""
    )
    for name in "abc":
        files.image(f"{images}{name}.jpg")
        if layout == "LabelMe":
            labelme(files, name)
        if layout == "VOC":
            files.text(f"annotations/{name}.xml", files.voc(name))
        if layout == "VOC elsewhere":
            files.text(f"annots/{name}.xml", files.voc(name))
        if layout == "VOC beside images":
            files.text(f"{name}.xml", files.voc(name))
        if layout == "VOC's own folders":
            files.text(f"Annotations/{name}.xml", files.voc(name))
    if layout == "CVAT":
        files.text("annotations.xml", cvat(files, *"abc"))
    if layout == "COCO":
        files.json("_annotations.coco.json", files.coco(*"abc"))
    if layout == "CSV":
        files.text("_annotations.csv", csv_of(files, *"abc"))


@pytest.mark.parametrize(
    "layout", ["LabelMe", "VOC", "VOC beside images", "VOC's own folders", "VOC elsewhere", "CVAT", "COCO", "CSV"]
)
def test_layouts_without_splits_are_divided(layout, files, found, expected):
    write(layout, files)
    splits = found()
    assert (len(splits["train"]), len(splits["val"])) == (2, 1)
    assert splits["train"] | splits["val"] == expected("a", "b", "c")


def test_another_xml_file_hides_no_layout(files, found, expected):
    """Beside the folders of VOC, or among the labels of YOLO."""
    for name in "ab":
        files.image(f"images/{name}.jpg")
        files.text(f"Annotations/{name}.xml", files.voc(name))
    files.text("meta.xml", "<meta/>")
    splits = found()
    assert splits["train"] | splits["val"] == expected("a", "b")


@pytest.mark.parametrize(("images", "labels"), [("images/", "labels/"), ("", "")])
def test_xml_files_among_more_labels_of_yolo_are_not_the_data(images, labels, files, found, expected):
    for name in "abc":
        files.image(f"{images}{name}.jpg")
        files.text(f"{labels}{name}.txt", files.yolo(name))
    files.text("classes.txt", "cat\ndog\n")
    files.text("a.xml", files.voc("a"))
    splits = found()
    assert splits["train"] | splits["val"] == expected("a", "b", "c")


@pytest.mark.parametrize("layout", ["COCO", "VOC"])
def test_a_single_split_with_a_name_of_its_own_is_divided(layout, files, found, expected):
    """As CVAT exports a task."""
    for name in "abc":
        files.image(f"{'JPEGImages' if layout == 'VOC' else 'images/default'}/{name}.jpg")
        files.text(f"Annotations/{name}.xml", files.voc(name))
    if layout == "VOC":
        files.text("ImageSets/Main/default.txt", "a\nb\nc\n")
    else:
        files.json("annotations/instances_default.json", files.coco(*"abc"))
    splits = found()
    assert (len(splits["train"]), len(splits["val"])) == (2, 1)
    assert splits["train"] | splits["val"] == splits["default"] == expected("a", "b", "c")


def test_a_single_split_is_not_divided(files, found, expected):
    """Else images would be learned from and held out."""
    for name in "ab":
        files.image(f"JPEGImages/{name}.jpg")
        files.text(f"Annotations/{name}.xml", files.voc(name))
    files.text("ImageSets/Main/trainval.txt", "a\nb\n")
    assert found() == {"trainval": expected("a", "b")}
    (files.folder / "ImageSets/Main/trainval.txt").rename(files.folder / "ImageSets/Main/latest.txt")
    assert set(found()) == {"latest", "train", "val"}


@pytest.mark.parametrize("written", ["Train", "Validation"])
def test_names_of_splits_may_have_capitals(written, files):
    for name in "abc":
        files.image(f"images/{name}.jpg")
    files.json("annotations/instances_Train.json", files.coco("a", "b"))
    files.json("annotations/instances_Validation.json", files.coco("c"))
    for asked in (written, written.lower()):
        assert len(read_labelled([str(files.folder)], asked)) == (2 if written == "Train" else 1)


@pytest.mark.parametrize("layout", ["LabelMe", "VOC", "VOC beside images", "VOC elsewhere", "COCO", "CSV", "YOLO"])
def test_hidden_files_are_left_out(layout, files, found, expected):
    """Of macOS, of a Synology and of Jupyter."""
    write(layout, files)
    if layout == "YOLO":
        for name in "abc":
            files.text(f"{name}.txt", files.yolo(name))
        files.text("classes.txt", "cat\ndog\n")
    for path in list(files.folder.rglob("*.*")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
        for hidden in ("@eaDir", ".ipynb_checkpoints"):
            (path.parent / hidden).mkdir(exist_ok=True)
            (path.parent / hidden / path.name).write_bytes(path.read_bytes())
    splits = found()
    assert splits["train"] | splits["val"] == expected("a", "b", "c")


@pytest.mark.parametrize("kind", ["coco", "voc", "csv", "labelme"])
@pytest.mark.parametrize("held_out", ["valid", "val", "test"])
def test_a_folder_per_split(kind, held_out, files, found, expected):
    """As Roboflow exports them."""
    for split, names in (("train", "ac"), (held_out, "b")):
        for name in names:
            files.image(f"{split}/{name}.jpg")
            if kind == "voc":
                files.text(f"{split}/{name}.xml", files.voc(name))
            if kind == "labelme":
                labelme(files, name, f"{split}/")
        if kind == "coco":
            files.json(f"{split}/_annotations.coco.json", files.coco(*names))
        if kind == "csv":
            files.text(f"{split}/_annotations.csv", csv_of(files, *names))
    files.text("README.roboflow.txt", "")
    assert found() == {"train": expected("a", "c"), held_out: expected("b")}


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("instances_train.json", "train/{}.jpg"),
        ("annotations/train.json", "images/{}.jpg"),
        ("pets_train.json", "{}.jpg"),
        ("annotations/instances_train.json", "images/train/{}.jpg"),
    ],
)
def test_coco_files_elsewhere(file, path, files, found, expected):
    for name in "ab":
        files.image(path.format(name))
    files.json(file, files.coco("a", "b"))
    assert found() == {"train": expected("a", "b")}


def test_a_coco_file_whose_images_are_elsewhere(files, found, expected, tmp_path):
    """Its names are whole paths. The file itself is given."""
    for name in "ab":
        files.image(f"far/away/{name}.jpg")
    files.json("labels/pets.json", files.coco("a", "b", path=f"{tmp_path}/far/away/{{}}.jpg"))
    splits = found("labels/pets.json")
    assert splits["train"] | splits["val"] == expected("a", "b")


def test_of_several_coco_files_the_named_one_is_read(files, found, expected):
    """Its images are next to the folder of annotations."""
    for name in "ab":
        files.image(f"{'train' if name == 'a' else 'val'}/{name}.jpg")
    files.json("annotations/instances_train.json", files.coco("a"))
    files.json("annotations/instances_val.json", files.coco("b"))
    assert found("annotations/instances_val.json") == {"val": expected("b")}


def test_a_table_with_blanks(files, found, expected):
    files.image("a.jpg")
    files.image("b.jpg")
    files.text("boxes.csv", csv_of(files, "a", "b").replace(",", " , "))
    splits = found()
    assert splits["train"] | splits["val"] == expected("a", "b")


@pytest.mark.parametrize("place", ["", "data/"])
def test_a_table_per_split(place, files, found, expected):
    """As tutorials of TensorFlow make them."""
    for split, names in (("train", "a"), ("valid", "c"), ("test", "b")):
        for name in names:
            files.image(f"images/{split}/{name}.jpg")
        files.text(f"{place}{split}_labels.csv", csv_of(files, *names))
    assert found() == {"train": expected("a"), "valid": expected("c"), "test": expected("b")}


def test_several_tables_are_told(files, found):
    """One of them may hold what a model found."""
    files.text("boxes.csv", csv_of(files, "a"))
    files.text("predictions.csv", csv_of(files, "a"))
    with pytest.raises(DataError, match=r"has 2 tables of boxes; name the one to read: --data .*/boxes.csv, or "):
        found()
    for name in ("train_cats.csv", "train_dogs.csv"):
        files.text(name, csv_of(files, "a"))
    with pytest.raises(DataError, match=r"train_dogs.csv and .*train_cats.csv are both of the split train"):
        found()


def test_folders_of_splits_go_before_tables_made_of_them(files, found, expected):
    """A table lacks the images without objects."""
    for split, names in (("train", "ac"), ("test", "b")):
        for name in names:
            files.image(f"{split}/{name}.jpg")
            files.text(f"{split}/{name}.xml", files.voc(name))
        files.text(f"{split}_labels.csv", "\n".join(csv_of(files, *names).splitlines()[:2]))
    assert found() == {"train": expected("a", "c"), "test": expected("b")}


def test_several_coco_files_are_told(files, found, expected):
    """A picture's dogs may be labelled in the other. JSON of something else counts as none."""
    for name in "ab":
        files.image(f"{name}.jpg")
    files.json("a.json", {"tool": "x"})
    files.json("cats.json", files.coco("a", "b"))
    splits = found()
    assert splits["train"] | splits["val"] == expected("a", "b")
    files.json("dogs.json", files.coco("b"))
    with pytest.raises(
        DataError, match=r"has 2 COCO files \(cats.json, dogs.json\); name the one to read: --data .*/cats.json"
    ):
        found()


def test_two_coco_files_of_one_split_are_told(files, found):
    for name in ("cats_train.json", "dogs_train.json"):
        files.json(f"annotations/{name}", files.coco("a"))
    with pytest.raises(
        DataError, match=r"annotations: cats_train.json and dogs_train.json are both of the split train"
    ):
        found()


def test_a_row_that_is_cut_is_named(files, found):
    files.image("a.jpg")
    files.text("boxes.csv", csv_of(files, "a") + "\nb.jpg,40,20,cat,1")
    with pytest.raises(DataError, match=r"boxes\.csv: image 'b\.jpg': could not convert string to float: ''"):
        found()


def test_label_studio_s_coco(files, found, expected):
    for name in "ab":
        files.image(f"images/{name}.jpg")
    files.json("result.json", files.coco("a", "b", path="images/{}.jpg"))
    splits = found()
    assert splits["train"] | splits["val"] == expected("a", "b")


@pytest.mark.parametrize("place", ["", "annotations/", "labels/"])
@pytest.mark.parametrize("images", ["train/", "images/train/", "images/", ""])
def test_open_images(place, images, files, found, expected):
    """Of the listed images only those are there that somebody downloaded."""
    lines = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"]
    codes = {"cat": "/m/01yrx", "dog": "/m/0bt9lr"}
    for name in ("a", "b", "elsewhere"):
        for _, label, (x, y, right, bottom) in files.boxes.get(name, files.boxes["b"]):
            lines.append(f"{name},xclick,{codes[label]},1,{x / 40},{right / 40},{y / 20},{bottom / 20},0,0,0")
    files.text(f"{place}train-annotations-bbox.csv", "\n".join(lines))
    files.text(f"{place}class-descriptions-boxable.csv", "/m/01yrx,cat\n/m/0bt9lr,dog\n")
    for name in "abc":
        files.image(f"{images}{name}.jpg")
    assert found() == {"train": expected("a", "b")}


def test_open_images_without_images_is_said(files, found):
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax"
    files.text("train-annotations-bbox.csv", f"{header}\na,x,/m/1,1,0,1,0,1")
    with pytest.raises(DataError, match="none of the 1 images that it lists is in "):
        found()


def test_a_group_of_open_images_is_a_crowd(files):
    header = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf"
    files.text("validation-annotations-bbox.csv", f"{header}\na,/m/1,0,1,0,1,1\na,/m/1,0,0.5,0,1,0")
    files.image("validation/a.jpg")
    (image,) = read_labelled([str(files.folder)], "val")
    assert (image.class_names, image.is_crowd.tolist()) == (("/m/1", "/m/1"), [True, False])


def test_shapes_of_labelme(files, found):
    """Polygons and circles have the box around them. Points and lines are no objects."""
    shapes = [
        {"label": "cat", "points": [[1, 2], [9, 3], [5, 8]], "shape_type": "polygon"},
        {"label": "dog", "points": [[10, 10], [13, 14]], "shape_type": "circle"},
        {"label": "cat", "points": [[1, 1]], "shape_type": "point"},
        {"label": "cat", "points": [[1, 1], [2, 2]], "shape_type": "line"},
        {"label": "dog", "points": [[3, 4], [1, 2]], "shape_type": None},
    ]
    for name in "ab":
        labelme(files, name, shapes=shapes)
    splits = found()
    for objects in (splits["train"] | splits["val"]).values():
        assert objects == [("cat", (1, 2, 9, 8)), ("dog", (5, 5, 15, 15)), ("dog", (1, 2, 3, 4))]


def test_shapes_of_cvat(files, found):
    shapes = (
        '<polygon label="cat" points="1,2;9,3;5,8"/><ellipse label="dog" cx="10" cy="10" rx="5" ry="4"/>'
        '<mask label="dog" left="1" top="2" width="3" height="4" rle="0"/><polyline label="cat" points="1,1;2,2"/><tag label="x"/>'
    )
    files.text(
        "annotations.xml",
        cvat(files, "c", "a").replace(
            'name="c.jpg" width="40" height="20">', f'name="c.jpg" width="40" height="20">{shapes}'
        ),
    )
    files.image("images/c.jpg")
    files.image("images/a.jpg")
    splits = found()
    assert (splits["train"] | splits["val"])["c.jpg"] == [
        ("cat", (1, 2, 9, 8)), ("dog", (5, 6, 15, 14)), ("dog", (1, 2, 4, 6)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotations><track/></annotations>", "it is CVAT for video; export it as CVAT for images"),
        ("no XML", r"annotations\.xml: not CVAT's annotations"),
        ('<annotations><image name="a.jpg" width="x" height="1"/></annotations>', r"image 'a\.jpg': invalid literal"),
        (
            '<annotations><image name="a.jpg" width="9" height="9"><box label="x" xtl="nan" ytl="1" xbr="1" ybr="1"/></image></annotations>',
            r"image 'a\.jpg': xtl is nan",
        ),
    ],
)
def test_a_broken_file_of_cvat(content, message, files, found):
    files.text("annotations.xml", content)
    with pytest.raises(DataError, match=message):
        found()


def test_broken_files_of_labelme_and_csv_are_named(files, found):
    for name in "ab":
        labelme(files, name)
    files.text("b.json", "{}")
    with pytest.raises(DataError, match=r"b\.json: not LabelMe's"):
        found()
    for name in ("a.json", "b.json"):
        os.remove(files.folder / name)
    files.text("x.csv", csv_of(files, "a", "b").replace("4,2,20,10", "4,2,much,10"))
    with pytest.raises(DataError, match=r"x\.csv: image 'a\.jpg': could not convert string to float: 'much'"):
        found()


def images_of(*names: str) -> Source:
    return Source("test", lambda on_broken: [new_image(name, None, [], []) for name in names])


def test_the_division_is_that_of_the_names_and_keeps_copies_together() -> None:
    names = [f"folder/{number}.jpg" for number in range(100)]
    splits = {name: [image.uri for image in source.read(print)] for name, source in divided(images_of(*names)).items()}
    assert (len(splits["train"]), len(splits["val"])) == (80, 20)
    moved = divided(images_of(*[f"/other/place/{Path(name).name}" for name in reversed(names)]))["val"].read(print)
    assert {Path(image.uri).name for image in moved} == {Path(name).name for name in splits["val"]}
    copies = [f"{number}_jpg.rf.{code}.jpg" for number in range(10) for code in ("0a1", "2b3", "4c5")]
    held_out = [image.uri for image in divided(images_of(*copies))["val"].read(print)]
    assert len(held_out) == 6
    assert len({name.partition(".rf.")[0] for name in held_out}) == 2
    (alone,) = divided(images_of("a.jpg"))["train"].read(print)
    assert alone.uri == "a.jpg"


@pytest.mark.parametrize(("asked", "named"), [("val", "valid"), ("validation", "val"), ("valid", "validation")])
def test_names_of_splits_that_mean_the_same(asked, named, files):
    files.image(f"{named}/a.jpg")
    files.text(f"{named}/a.xml", files.voc("a"))
    assert len(read_labelled([str(files.folder)], asked)) == 1


def test_a_file_that_is_not_there(files):
    with pytest.raises(DataError, match=r"data '.*data\.yaml' is not there"):
        find_splits(f"{files.folder}/data.yaml")
