"""What a training starts from: nothing, a trunk, or a detector."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from model.config import Architecture, Preprocessing
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.ssd import SSD
from pipeline.errors import SettingError
from pipeline.labelled.dataset import read_clean
from pipeline.registry.packages import write_package
from pipeline.training.settings import TrainSettings
from pipeline.training.start import from_package, start_of
from tests.pipeline.training.starts import IMAGENET, short_training, write_trunk


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_trunk(tmp_path_factory.mktemp("trunk"))


def settings(output: Path, **more: object) -> TrainSettings:
    """Of data that no start reads."""
    return short_training(output / "data", output, **more)


def test_what_a_trunk_leaves_to_chance(tmp_path: Path, trunk: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    from_package(settings(tmp_path, init=trunk), ("circle",))
    assert "init: 26 tensors kept; at random: classification, conv10_1, conv10_2, " in caplog.text


def test_scaled_jpegs_are_part_of_what_a_training_starts_from(tmp_path: Path, trunk: str, labelled: Any) -> None:
    """A package to start from decides, unless the setting says it."""
    scaled = {"jpeg_dct_scaling": True}
    fresh, from_trunk = (
        start_of(settings(tmp_path, **more), ("circle",)) for more in (scaled, {"init": trunk, **scaled})
    )
    assert fresh.preprocessing == Preprocessing(std=IMAGENET.std, **scaled)
    assert from_trunk.preprocessing == IMAGENET.model_copy(update=scaled)
    whole = start_of(settings(tmp_path, init=trunk), ("circle",))
    assert whole.preprocessing == IMAGENET

    labelled.voc(tmp_path, size_px=(2600, 2600), a=labelled.thing("circle", 1, 1, 999, 999))
    Image.new("RGB", (2600, 2600), "navy").save(tmp_path / "JPEGImages/a.jpg")
    images = read_clean([str(tmp_path)], "train")
    each = (
        whole.examples(images, ("circle",)),
        fresh.examples(images, ("circle",)),
        fresh.examples(images, ("circle",), 0.3),
    )
    assert [examples[0].image.shape[2] for examples in each] == [2600, 650, 2600]  # a crop keeps fewer of the pixels


@pytest.mark.parametrize(
    ("labels", "class_map", "known", "new"),
    [
        (("circle", "ring"), {}, "circle, ring", "none"),
        (("other circle", "other ring"), {}, "none", "other circle, other ring"),
        (("cross", "ring", "round"), {"circle": "round"}, "ring, round", "cross"),
    ],
)
def test_a_training_starts_from_a_detector(
    tmp_path: Path,
    labels: tuple[str, ...],
    class_map: dict[str, str],
    known: str,
    new: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All is kept but the heads of classes that it does not know."""
    caplog.set_level("INFO")
    architecture, names = Architecture(width=0.05, batch_norm=True), ("circle", "ring")
    record = PackageRecord(name="first", architecture=architecture, class_names=names, preprocessing=IMAGENET)
    first = ModelPackage(record, SSD(architecture, 3).state_dict())
    write_package(first, str(tmp_path / "init"))
    start = from_package(settings(tmp_path / "again", init=str(tmp_path / "init"), class_map=class_map), labels)
    assert (start.architecture, start.preprocessing) == (architecture, IMAGENET)
    assert start.weights.keys() == first.weights.keys()
    of_all = [name for name in first.weights if not name.startswith("classification.") or labels == names]
    assert all(torch.equal(start.weights[name], first.weights[name]) for name in of_all)
    assert "at random: none\n" in caplog.text
    assert f"init: classes that it knows: {known}; new ones: {new}\n" in caplog.text


def test_class_maps_that_name_no_class_or_one_twice(tmp_path: Path) -> None:
    architecture = Architecture(width=0.05)
    record = PackageRecord(name="x", architecture=architecture, class_names=("disc", "plate", "ring"))
    write_package(ModelPackage(record, SSD(architecture, 4).state_dict()), str(tmp_path / "init"))
    for class_map, message in (
        ({"dics": "circle"}, "class_map: init has no class 'dics'; it has disc, plate, ring"),
        ({"disc": "round"}, "class_map: the data has no class 'round'; it has circle, ring"),
        ({"disc": "circle", "plate": "circle"}, "class_map: 'disc' and 'plate' of init would both be 'circle'"),
        ({"disc": "ring"}, "class_map: 'disc' and 'ring' of init would both be 'ring'"),
    ):
        with pytest.raises(SettingError, match=message):
            from_package(settings(tmp_path, init=str(tmp_path / "init"), class_map=class_map), ("circle", "ring"))


def test_scales_are_those_of_the_start_s_architecture(tmp_path: Path) -> None:
    """Eight for SSD512, though nobody said that it is one."""
    architecture = Architecture(kind="ssd512_vgg16", width=0.05)
    record = PackageRecord(name="x", architecture=architecture, class_names=("disc",))
    write_package(ModelPackage(record, SSD(architecture, 2).state_dict()), str(tmp_path / "init"))
    eight = tuple(number / 10 for number in range(1, 9))
    start = from_package(settings(tmp_path, init=str(tmp_path / "init"), scales=eight), ("disc",))
    assert start.architecture.scales == eight
    with pytest.raises(SettingError, match=r"^scales: .*8"):
        from_package(settings(tmp_path, init=str(tmp_path / "init"), scales=eight[:7]), ("disc",))


def test_the_trunk_of_a_detector_may_start_another_architecture(tmp_path: Path) -> None:
    """Or the same with other default boxes, which keeps the heads."""
    architecture = Architecture(width=0.05)
    record = PackageRecord(name="x", architecture=architecture, class_names=("circle",))
    write_package(ModelPackage(record, SSD(architecture, 2).state_dict()), str(tmp_path / "init"))
    init = {"init": str(tmp_path / "init")}
    larger = from_package(settings(tmp_path, **init, architecture="ssd512_vgg16"), ("circle",))
    assert larger.architecture == Architecture(kind="ssd512_vgg16", width=0.05)
    assert not any(name.startswith("classification.") for name in larger.weights)
    scales = (0.05, 0.1, 0.25, 0.4, 0.6, 0.8, 1.0)
    scaled = from_package(settings(tmp_path, **init, scales=scales), ("circle",))
    assert scaled.architecture == Architecture(width=0.05, scales=scales)
    assert any(name.startswith("classification.") for name in scaled.weights)


def test_a_setting_that_contradicts_init(tmp_path: Path, trunk: str) -> None:
    with pytest.raises(SettingError, match=r"width: that of init .* is 0\.1, not 0\.05"):
        from_package(settings(tmp_path, init=trunk, width=0.05), ("circle",))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"trunk.0.weight": torch.zeros(64, 3, 3, 3)}, "nothing of its trunk fits ssd300_vgg16"),
        ({"trunk.0.weight": torch.full((8, 3, 3, 3), torch.nan)}, r"not finite numbers: trunk\.0\.weight"),
    ],
)
def test_an_init_that_is_no_start(tmp_path: Path, weights: dict[str, torch.Tensor], message: str) -> None:
    record = PackageRecord(name="x", architecture=Architecture(width=0.05), class_names=())
    write_package(ModelPackage(record, weights), str(tmp_path / "init"))
    with pytest.raises(SettingError, match=message):
        from_package(settings(tmp_path, init=str(tmp_path / "init")), ("circle",))


def test_an_init_that_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^init: model .* can't be read: "):
        from_package(settings(tmp_path, init=str(tmp_path / "none")), ("circle",))
