"""What a training makes of its data before it starts."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import SettingError
from pipeline.labelled.dataset import read_clean
from pipeline.labelled.record import DataError
from pipeline.training.run import known, of_classes, read_sized, readable, suited_to
from pipeline.training.settings import TrainSettings
from pipeline.training.start import from_scratch, start_of
from tests.pipeline.training.starts import short_training as settings
from tests.pipeline.training.starts import write_trunk


def test_the_learning_rate_follows_the_start(tmp_path: Path) -> None:
    trunk = write_trunk(tmp_path / "trunk")
    plain, fresh = (settings(tmp_path, tmp_path, **more) for more in ({"init": trunk}, {}))
    assert suited_to(start_of(plain, ("circle",)), plain, []).learning_rate == 0.001
    assert suited_to(start_of(fresh, ("circle",)), fresh, []).learning_rate == 0.02
    chosen = settings(tmp_path, tmp_path, init=trunk, learning_rate=0.02)
    assert suited_to(start_of(chosen, ("circle",)), chosen, []).learning_rate == 0.02


def test_epochs_are_steps(labelled: Any, tmp_path: Path) -> None:
    labelled.voc(tmp_path, **{str(number): labelled.thing("circle", 2, 2, 4, 4) for number in range(9)})
    given = TrainSettings(data=(str(tmp_path),), output=str(tmp_path), name="x", epochs=1.5, batch_size=4)
    images = read_clean([str(tmp_path)], "train")
    assert suited_to(start_of(given, ("circle",)), given, images).num_steps == 4  # 13.5 images
    with pytest.raises(ValueError, match=r"epochs 2 and num_steps 5 both say how long to train; give one"):
        TrainSettings(data=(str(tmp_path),), output=str(tmp_path), name="x", epochs=2, num_steps=5)


def test_settings_follow_the_data_unless_they_are_given(
    labelled: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixty objects of one size: they need hardly any zoom."""
    labelled.voc(tmp_path, **{str(number): labelled.thing("cat", 2, 2, 8, 8) for number in range(60)})
    images = read_clean([str(tmp_path)], "train")
    free = settings(tmp_path, tmp_path)
    with caplog.at_level(logging.INFO):
        chosen = suited_to(from_scratch(0.05), free, images)
    assert (chosen.zoom_out_max, chosen.crop_min) == (1.2, 0.8)
    assert (
        "zoom_out_max: 1.2, as objects are 1.00 to 1.00 times as large as the median of their class" in caplog.messages
    )
    for more in ({"zoom_out_max": 4, "crop_min": 0.3}, {"follow_data": False}):
        kept = suited_to(from_scratch(0.05), settings(tmp_path, tmp_path, **more), images)
        assert (kept.zoom_out_max, kept.crop_min) == (4, 0.3)


def test_images_that_can_not_be_read_are_left_out_and_named(
    labelled: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as they are few."""
    labelled.voc(tmp_path, **{str(number): labelled.thing("cat", 2, 2, 4, 4) for number in range(20)})
    images = read_clean([str(tmp_path)], "train")
    start = from_scratch(0.05)
    for broken, expected in ((0, 20), (2, 18)):
        for number in range(broken):
            (tmp_path / f"JPEGImages/{number}.jpg").write_bytes(b"no image")
        assert len(readable(images, start.examples(images, ("cat",)), "train")) == expected
    assert "train: 2 of 20 images can't be read, and are left out: " in caplog.text
    unsized = [replace(image, size_px=None) for image in images]
    assert {image.size_px for image in readable(unsized, start.examples(unsized, ("cat",)), "train")} == {(20, 10)}
    (tmp_path / "JPEGImages/2.jpg").unlink()
    with pytest.raises(
        SettingError, match=r"0\.jpg: .*; 3 of the 20 images of 'train' can't be read; ssd-batch data check"
    ):
        readable(images, start.examples(images, ("cat",)), "train")


def test_only_some_classes_are_learned(labelled: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The objects of others are background, and no image goes."""
    classes = ("circle", "ring", "cross")
    labelled.voc(tmp_path, **{name: labelled.thing(name, 2, 2, 4, 4) for name in classes})
    images = read_clean([str(tmp_path)], "train")
    (tmp_path / "names").write_text("ring\ncircle\n")
    some = settings(tmp_path, tmp_path, class_names=str(tmp_path / "names"))
    kept, names = of_classes(images, some)
    assert names == ("ring", "circle")
    assert [image.uri for image in kept] == [image.uri for image in images]
    assert {name for image in kept for name in image.class_names} == {"ring", "circle"}
    assert of_classes(images, settings(tmp_path, tmp_path))[0] is images
    caplog.clear()
    assert [image.class_names for image in known(images, names, "val")] == [("circle",), ("ring",), ()]
    assert caplog.messages == ["val: objects of classes that are not learned are left out: cross"]
    assert known(kept, names, "val") is kept
    with pytest.raises(
        DataError,
        match=r"^val_split 'val': no object is of a class that is learned; it has circle, cross, ring, and dog",
    ):
        known(images, ("dog",), "val")
    (tmp_path / "names").write_text("rings\n")
    with pytest.raises(SettingError, match=r"class_names: no object is of class 'rings'; there are circle"):
        of_classes(images, some)


@pytest.mark.parametrize("num_images", [5, 11])
def test_a_few_images_whose_boxes_can_not_be_known_are_left_out(
    num_images: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """YOLO's are shares of a size. One of eleven is few, one of five is not."""
    for number in range(num_images):
        for folder in ("images/train", "labels/train"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"images/train/{number}.jpg")
        (tmp_path / f"labels/train/{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [dot]\n")
    (tmp_path / "images/train/0.jpg").write_bytes(b"")
    if num_images == 5:
        with pytest.raises(
            DataError, match=r"0\.jpg: .*; 1 of the 5 images of 'train' can't be read; ssd-batch data check"
        ):
            read_sized(settings(tmp_path, tmp_path), "train")
    else:
        assert len(read_sized(settings(tmp_path, tmp_path), "train")) == 10
        assert "train: 1 of 11 images can't be read, and are left out: " in caplog.text


def test_an_image_that_is_left_out_counts_in_its_own_part(tmp_path: Path) -> None:
    """Of 40 images without splits 8 are held out: one of either part is few, where both together were many of these."""
    for number in range(40):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.jpg")
        (tmp_path / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("dot\n")
    given = settings(tmp_path, tmp_path)
    in_train = [Path(image.uri) for image in read_sized(given, "train", ["val"])][:2]
    for path in in_train:
        path.unlink()
        path.touch()
    assert (len(read_sized(given, "train", ["val"])), len(read_sized(given, "val"))) == (30, 8)
