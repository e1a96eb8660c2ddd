"""From labelled images to a measured package."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from jobs.commands import train as commands
from jobs.commands.train import evaluate_and_show, train_and_show, with_start
from jobs.demo import PACKAGE
from jobs.demo.pictures import CLASS_NAMES, draw_picture
from model.config import Architecture, Preprocessing
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.ssd import SSD, adapted_trunk
from pipeline.errors import SettingError, SsdBatchError
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.labelled.dataset import read_clean
from pipeline.registry.packages import read_package, read_start, write_package
from pipeline.training.run import of_classes, readable, suited_to, train_on_data
from pipeline.training.settings import TrainSettings
from pipeline.training.start import from_package, from_scratch, start_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("local_cluster"),
]

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voc")
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for seed in range(12):
        picture = draw_picture(seed)
        picture.image.save(root / f"JPEGImages/{seed}.jpg")
        objects = zip(picture.labels, picture.boxes_xyxy.astype(int), strict=True)
        drawn = "".join(OBJECT.format(CLASS_NAMES[label - 1], *box) for label, box in objects)
        text = f"<annotation><filename>{seed}.jpg</filename>{drawn}</annotation>"
        (root / f"Annotations/{seed}.xml").write_text(text)
    (root / "ImageSets/Main/train.txt").write_text("\n".join(map(str, range(9))))
    (root / "ImageSets/Main/val.txt").write_text("9\n10\n11\n")
    return root


def settings(voc: Path, output: Path, **more: object) -> TrainSettings:
    few: dict[str, Any] = {"num_steps": 2, "batch_size": 2}
    if "init" not in more:
        few["width"] = 0.05
    return TrainSettings(data=(str(voc),), output=str(output), name="shapes", **few | more)


RECORD = PackageRecord(name="x", architecture=Architecture(width=0.05), class_names=("disc",))
IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A narrow VGG16 as `model import` leaves wide ones: no heads, no classes, no batch norm."""
    torch.manual_seed(3)
    architecture = Architecture(width=0.1)
    weights = {f"trunk.{name}": tensor for name, tensor in adapted_trunk(architecture).state_dict().items()}
    record = PackageRecord(name="vgg", architecture=architecture, class_names=(), preprocessing=IMAGENET)
    url = str(tmp_path_factory.mktemp("trunk"))
    write_package(ModelPackage(record, weights), url)
    return url


@dataclass(frozen=True)
class Trained:
    """A training that began with the trunk. folder: of its `model` and its TensorBoard `events`; metrics: what it returned."""

    folder: Path
    metrics: dict[str, Any]


@pytest.fixture(scope="module")
def trained(voc: Path, trunk: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Its steps are so small that weights stay what they were, to the eye of float16."""
    folder = tmp_path_factory.mktemp("trained")
    more = {"seed": 5, "learning_rate": 1e-9, "weight_decay": 0, "tensorboard": str(folder / "events")}
    start = {"init": trunk, "architecture": "ssd512_vgg16"}
    return Trained(folder, train_and_show(settings(voc, folder / "model", **start, **more)))


def test_a_training_leaves_a_package_with_its_metrics(voc: Path, trained: Trained, tmp_path: Path) -> None:
    folder, metrics = trained.folder, trained.metrics
    package = read_package(str(folder / "model"))
    assert set(package.record.class_names) <= set(CLASS_NAMES)
    assert json.loads(json.dumps(metrics)) == package.record.metrics
    origin = package.record.provenance
    assert (origin["settings"]["seed"], origin["num_steps"], origin["num_workers"], origin["devices"]) == (
        5,
        2,
        [1],
        ["cpu"],
    )
    assert (origin["data"], origin["split"], origin["num_images"]) == ([str(voc)], "train", 9)
    page = (folder / "model/training.html").read_text()
    assert all(text in page for text in (package.digest, 'aria-label="Loss"', "Worst mistakes", origin["data_digest"]))
    assert len(list((folder / "events").glob("events.out.tfevents.*"))) == 1
    assert (metrics["num_images"], set(metrics["per_class"]) <= set(CLASS_NAMES)) == (3, True)

    held_out = EvaluateSettings(
        model=str(folder / "model"), data=(str(voc),), split="val", page=str(tmp_path / "page.html")
    )
    assert evaluate_and_show(held_out).metrics.summary().items() <= metrics.items()
    assert 'aria-label="Loss"' not in (tmp_path / "page.html").read_text()


def test_trainings_with_several_seeds(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a training of its own; started again, none is trained anew, and those of another recipe are named."""
    begun = []

    def learn(one: TrainSettings) -> dict[str, Any]:
        begun.append((one.seed, one.name, one.output, one.storage, one.tensorboard))
        metrics = {"map": 0.25 * (one.seed - 2), "map50": 0.75, "voc_map_all": None}
        origin = {"settings": one.model_dump(mode="json")}
        record = RECORD.model_copy(update={"metrics": metrics, "provenance": origin})
        write_package(ModelPackage(record, {}), one.output)
        return metrics

    monkeypatch.setattr(commands, "train_and_show", learn)
    several = settings(voc, tmp_path, seed=3, num_seeds=2, tensorboard="events")
    found = commands.train_seeds(several)
    assert begun == [
        (seed, f"shapes-seed-{seed}", f"{tmp_path}/seed-{seed}", f"{tmp_path}/_runs", f"events/seed-{seed}")
        for seed in (3, 4)
    ]
    assert list(found) == ["seed-3", "seed-4", "mean", "spread"]
    assert found["mean"] == {"map": 0.375, "map50": 0.75}
    assert found["spread"] == {"map": 0.25, "map50": 0.0}
    assert commands.train_seeds(several) == found
    assert len(begun) == 2
    with pytest.raises(SettingError, match=r"batch_size: 3, not 2 as '.*seed-3' was trained with; give another output"):
        commands.train_seeds(several.model_copy(update={"batch_size": 3}))


def test_a_training_starts_from_a_trunk(trained: Trained, trunk: str) -> None:
    package = read_package(str(trained.folder / "model"))
    assert package.record.architecture == Architecture(kind="ssd512_vgg16", width=0.1)
    assert package.record.preprocessing == IMAGENET
    start = read_start(trunk)
    assert package.record.provenance["init"] == start.digest
    assert len(start.weights) == 26
    for name, tensor in start.weights.items():
        torch.testing.assert_close(package.weights[name].float(), tensor.float(), atol=1e-3, rtol=1e-3)


def test_what_a_trunk_leaves_to_chance(
    voc: Path, tmp_path: Path, trunk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from_package(settings(voc, tmp_path, init=trunk), ("circle",))
    assert "init: 26 tensors kept; at random: classification, conv10_1, conv10_2, " in capsys.readouterr().err


def test_scaled_jpegs_are_part_of_what_a_training_starts_from(
    voc: Path, tmp_path: Path, trunk: str, labelled: Any
) -> None:
    """A package to start from decides, unless the setting says it."""
    scaled = {"jpeg_dct_scaling": True}
    fresh, from_trunk = (
        start_of(settings(voc, tmp_path, **more), ("circle",)) for more in (scaled, {"init": trunk, **scaled})
    )
    assert fresh.preprocessing == Preprocessing(std=IMAGENET.std, **scaled)
    assert from_trunk.preprocessing == IMAGENET.model_copy(update=scaled)
    whole = start_of(settings(voc, tmp_path, init=trunk), ("circle",))
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


def test_a_training_stops_before_it_starts(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no data has the split 'other'"):
        train_on_data(settings(voc, tmp_path / "model", train_split="other"))
    with pytest.raises(SettingError, match=r"class_weights: no class is named klass 1; there are "):
        train_on_data(settings(voc, tmp_path / "model", class_weights={"klass 1": 3}))
    picture = voc / "JPEGImages/10.jpg"
    content = picture.read_bytes()
    picture.write_bytes(content[:200])
    with pytest.raises(SettingError, match=r"JPEGImages/10\.jpg: "):
        train_on_data(settings(voc, tmp_path / "model"))  # it would be measured on at the end
    picture.write_bytes(content)
    (voc / "ImageSets/Main/empty.txt").write_text("empty\n")
    (voc / "Annotations/empty.xml").write_text("<annotation/>")
    (voc / "JPEGImages/empty.jpg").write_bytes(content)
    with pytest.raises(SettingError, match=r"train_split 'empty': nothing to learn from in 1 images"):
        train_on_data(settings(voc, tmp_path / "model", train_split="empty"))
    assert not (tmp_path / "model").exists()
    begun = tmp_path / "model/_runs/shapes/settings.json"
    begun.parent.mkdir(parents=True)
    begun.write_text("{}")
    with pytest.raises(SettingError, match=r"num_steps: 2, not None; .* as the run in .* was begun with"):
        train_on_data(settings(voc, tmp_path / "model"))
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(SettingError, match="holds a model package already"):
        train_on_data(settings(voc, tmp_path))


@pytest.mark.parametrize(
    ("labels", "class_map", "known", "new"),
    [
        (("circle", "ring"), {}, "circle, ring", "none"),
        (("other circle", "other ring"), {}, "none", "other circle, other ring"),
        (("cross", "ring", "round"), {"circle": "round"}, "ring, round", "cross"),
    ],
)
def test_a_training_starts_from_a_detector(
    voc: Path,
    tmp_path: Path,
    labels: tuple[str, ...],
    class_map: dict[str, str],
    known: str,
    new: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All is kept but the heads of classes that it does not know."""
    architecture, names = Architecture(width=0.05, batch_norm=True), ("circle", "ring")
    record = PackageRecord(name="first", architecture=architecture, class_names=names, preprocessing=IMAGENET)
    first = ModelPackage(record, SSD(architecture, 3).state_dict())
    write_package(first, str(tmp_path / "init"))
    start = from_package(settings(voc, tmp_path / "again", init=str(tmp_path / "init"), class_map=class_map), labels)
    assert (start.architecture, start.preprocessing) == (architecture, IMAGENET)
    assert start.weights.keys() == first.weights.keys()
    of_all = [name for name in first.weights if not name.startswith("classification.") or labels == names]
    assert all(torch.equal(start.weights[name], first.weights[name]) for name in of_all)
    told = capsys.readouterr().err
    assert "at random: none\n" in told
    assert f"init: classes that it knows: {known}; new ones: {new}\n" in told


def test_class_maps_that_name_no_class(voc: Path, tmp_path: Path) -> None:
    architecture = Architecture(width=0.05)
    record = PackageRecord(name="x", architecture=architecture, class_names=("disc",))
    write_package(ModelPackage(record, SSD(architecture, 2).state_dict()), str(tmp_path / "init"))
    for class_map, message in (
        ({"dics": "circle"}, "class_map: init has no class 'dics'; it has disc"),
        ({"disc": "round"}, "class_map: the data has no class 'round'; it has circle"),
    ):
        with pytest.raises(SettingError, match=message):
            from_package(settings(voc, tmp_path, init=str(tmp_path / "init"), class_map=class_map), ("circle",))


def test_the_learning_rate_follows_the_start(voc: Path, tmp_path: Path, trunk: str) -> None:
    plain, fresh = (settings(voc, tmp_path, **more) for more in ({"init": trunk}, {}))
    assert suited_to(start_of(plain, ("circle",)), plain, []).learning_rate == 0.001
    assert suited_to(start_of(fresh, ("circle",)), fresh, []).learning_rate == 0.02
    chosen = settings(voc, tmp_path, init=trunk, learning_rate=0.02)
    assert suited_to(start_of(chosen, ("circle",)), chosen, []).learning_rate == 0.02


def test_the_demos_model_is_the_start_where_it_fits(voc: Path, tmp_path: Path, trunk: str) -> None:
    plain = TrainSettings(data=(str(voc),), output=str(tmp_path), name="x")
    chosen = with_start(plain)
    assert chosen.init == str(PACKAGE)
    start = start_of(chosen, ("circle", "cat"))
    assert (start.architecture, start.preprocessing) == (
        from_scratch(0.25).architecture,
        from_scratch(0.25).preprocessing,
    )
    for changes in ({"width": 0.5}, {"init": "random"}, {"init": trunk}):
        given = plain.model_copy(update=changes)
        assert with_start(given) == given
    assert start_of(plain.model_copy(update={"init": "random"}), ("circle",)).weights == {}
    with pytest.raises(SettingError, match="freeze_stages 2 would keep random weights; give init, too"):
        start_of(plain.model_copy(update={"init": "random", "freeze_stages": 2}), ("circle",))


def test_epochs_are_steps(voc: Path, tmp_path: Path) -> None:
    given = TrainSettings(data=(str(voc),), output=str(tmp_path), name="x", epochs=1.5, batch_size=4)
    images = read_clean([str(voc)], "train")
    assert suited_to(start_of(given, ("circle",)), given, images).num_steps == 4  # 13.5 images
    with pytest.raises(ValueError, match=r"epochs 2 and num_steps 5 both say how long to train; give one"):
        TrainSettings(data=(str(voc),), output=str(tmp_path), name="x", epochs=2, num_steps=5)


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


def test_only_some_classes_are_learned(voc: Path, tmp_path: Path) -> None:
    """The objects of others are background, and no image goes."""
    images = read_clean([str(voc)], "train")
    (tmp_path / "names").write_text("ring\ncircle\n")
    some = settings(voc, tmp_path, class_names=str(tmp_path / "names"))
    kept, names = of_classes(images, some)
    assert names == ("ring", "circle")
    assert [image.uri for image in kept] == [image.uri for image in images]
    assert {name for image in kept for name in image.class_names} == {"ring", "circle"}
    assert of_classes(images, settings(voc, tmp_path))[0] is images
    (tmp_path / "names").write_text("rings\n")
    with pytest.raises(SettingError, match=r"class_names: no object is of class 'rings'; there are circle"):
        of_classes(images, some)


def test_a_setting_that_contradicts_init(voc: Path, tmp_path: Path, trunk: str) -> None:
    with pytest.raises(SettingError, match=r"width: that of init .* is 0\.1, not 0\.05"):
        train_on_data(settings(voc, tmp_path / "model", init=trunk, width=0.05))


def test_the_trunk_of_a_detector_may_start_another_architecture(voc: Path, tmp_path: Path) -> None:
    """Or the same with other default boxes, which keeps the heads."""
    architecture = Architecture(width=0.05)
    record = PackageRecord(name="x", architecture=architecture, class_names=("circle",))
    write_package(ModelPackage(record, SSD(architecture, 2).state_dict()), str(tmp_path / "init"))
    init = {"init": str(tmp_path / "init")}
    larger = from_package(settings(voc, tmp_path, **init, architecture="ssd512_vgg16"), ("circle",))
    assert larger.architecture == Architecture(kind="ssd512_vgg16", width=0.05)
    assert not any(name.startswith("classification.") for name in larger.weights)
    scales = (0.05, 0.1, 0.25, 0.4, 0.6, 0.8, 1.0)
    scaled = from_package(settings(voc, tmp_path, **init, scales=scales), ("circle",))
    assert scaled.architecture == Architecture(width=0.05, scales=scales)
    assert any(name.startswith("classification.") for name in scaled.weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"trunk.0.weight": torch.zeros(64, 3, 3, 3)}, "nothing of its trunk fits ssd300_vgg16"),
        ({"trunk.0.weight": torch.full((8, 3, 3, 3), torch.nan)}, r"not finite numbers: trunk\.0\.weight"),
    ],
)
def test_an_init_that_is_no_start(voc: Path, tmp_path: Path, weights: dict[str, torch.Tensor], message: str) -> None:
    record = PackageRecord(name="x", architecture=Architecture(width=0.05), class_names=())
    write_package(ModelPackage(record, weights), str(tmp_path / "init"))
    with pytest.raises(SettingError, match=message):
        train_on_data(settings(voc, tmp_path / "model", init=str(tmp_path / "init")))


def test_an_init_that_is_no_package(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^init: model .* can't be read: "):
        train_on_data(settings(voc, tmp_path / "model", init=str(tmp_path / "none")))


def test_a_loss_that_is_no_number_is_one_line(voc: Path, tmp_path: Path) -> None:
    """And its batch is kept: what came out of the augmentation, and where it is from."""
    with pytest.raises(
        SsdBatchError, match=r"the loss is (nan|inf) at step \d; its batch is kept in .*; a lower learn"
    ):
        train_on_data(settings(voc, tmp_path, learning_rate=1e30, warmup_steps=0, num_steps=9))
    (file,) = (tmp_path / "_runs/shapes").glob("not_finite_step_*.json")
    kept = json.loads(file.read_text())
    assert kept["learning_rate"] > 1e29
    assert [Path(image["uri"]).parent for image in kept["images"]] == [voc / "JPEGImages"] * 2
    assert len(kept["images"][0]["boxes_xyxy"]) == len(kept["images"][0]["labels"])
