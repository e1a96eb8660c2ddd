"""From labelled images to a measured package."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.commands import train as commands
from jobs.commands.train import evaluate_and_show, train_and_show, with_start
from jobs.demo import PACKAGE
from jobs.demo.pictures import CLASS_NAMES, draw_picture
from model.config import Architecture
from model.package import ModelPackage
from model.package_files import PackageRecord
from pipeline.errors import SettingError, SsdBatchError
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.registry.packages import read_package, read_start, write_package
from pipeline.training.run import train_on_data
from pipeline.training.settings import TrainSettings
from pipeline.training.start import from_scratch, start_of
from tests.pipeline.training.starts import IMAGENET, write_trunk
from tests.pipeline.training.starts import short_training as settings

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


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_trunk(tmp_path_factory.mktemp("trunk"))


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
        record = PackageRecord(
            name="x", architecture=Architecture(width=0.05), class_names=("disc",), metrics=metrics, provenance=origin
        )
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


def test_a_training_stops_before_it_starts(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no data has the split 'other'"):
        train_on_data(settings(voc, tmp_path / "model", train_split="other"))
    with pytest.raises(SettingError, match=r"class_weights: no class is named klass 1; there are "):
        train_on_data(settings(voc, tmp_path / "model", class_weights={"klass 1": 3}))
    (voc / "ImageSets/Main/seen.txt").write_text("1\n2\n")
    with pytest.raises(SettingError, match=r"val_split 'seen': all of its images are in train_split 'train', too"):
        train_on_data(settings(voc, tmp_path / "model", val_split="seen"))
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
    with pytest.raises(SettingError, match=r"val_split 'empty': no object to measure on in 1 images; name another"):
        train_on_data(settings(voc, tmp_path / "model", val_split="empty"))
    assert not (tmp_path / "model").exists()
    begun = tmp_path / "model/_runs/shapes/settings.json"
    begun.parent.mkdir(parents=True)
    begun.write_text("{}")
    with pytest.raises(SettingError, match=r"num_steps: 2, not None; .* as the run in .* was begun with"):
        train_on_data(settings(voc, tmp_path / "model"))
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(SettingError, match="holds a model package already"):
        train_on_data(settings(voc, tmp_path))


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
