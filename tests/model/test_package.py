import json

import pytest
import torch
from safetensors.torch import save

from model.config import Architecture, Preprocessing, Thresholds
from model.package import ModelPackage
from model.package_files import RECORD_FILE, WEIGHTS_FILE, PackageError, PackageFiles, PackageRecord
from model.ssd import SSD

RECORD = PackageRecord(
    name="shapes",
    architecture=Architecture(width=0.1, batch_norm=True),
    class_names=("disc", "square"),
    provenance={"seed": 0},
    metrics={"map": 0.5},
)


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    torch.manual_seed(0)
    return ModelPackage(RECORD, SSD(RECORD.architecture, 3).state_dict())


def with_record(package: ModelPackage, **changes: object) -> ModelPackage:
    return ModelPackage(package.record.model_copy(update=changes), package.weights)


def with_json(package: ModelPackage, **changes: object) -> dict[str, bytes]:
    files = package.to_files()
    return files | {RECORD_FILE: json.dumps(json.loads(files[RECORD_FILE]) | changes).encode()}


def test_round_trip(package):
    files = package.to_files()
    assert set(files) == {"model.json", "model.safetensors"}
    again = ModelPackage.from_files(files)
    assert again.record == package.record
    assert again.digest == package.digest
    assert all(torch.equal(tensor, again.weights[name]) for name, tensor in package.weights.items())


def test_round_trip_of_ssd512(package):
    architecture = Architecture(kind="ssd512_vgg16", width=0.1)
    large = ModelPackage(RECORD.model_copy(update={"architecture": architecture}), SSD(architecture, 3).state_dict())
    again = ModelPackage.from_files(large.to_files())
    assert again.record.architecture == architecture
    assert again.digest == large.digest != package.digest
    assert len(again.network().localization) == 7


def test_the_network_has_the_weights_and_is_ready_for_inference(package):
    network = package.network()
    assert not network.training
    assert torch.equal(network.trunk[0].weight, package.weights["trunk.0.weight"])


def test_weights_stored_in_half_are_used_in_full(package):
    halves = {name: t.half() if t.is_floating_point() else t for name, t in package.weights.items()}
    network = ModelPackage.from_files(ModelPackage(RECORD, halves).to_files()).network()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert torch.equal(network.trunk[0].weight, package.weights["trunk.0.weight"].half().float())


def test_digest_is_of_what_changes_the_boxes(package):
    """Each of these is another model."""
    changed = {name: tensor.clone() for name, tensor in package.weights.items()}
    changed["localization.0.bias"][3] += 1e-6
    others = [
        with_record(package, class_names=("disc", "triangle")),
        with_record(package, thresholds=Thresholds(score_thresh=0.02)),
        with_record(package, preprocessing=Preprocessing(std=(0.2, 0.2, 0.2))),
        with_record(package, preprocessing=Preprocessing(jpeg_dct_scaling=True)),
        with_record(package, architecture=Architecture(width=0.1, batch_norm=True, steps_px=(8, 16, 32, 64, 100, 299))),
        ModelPackage(RECORD, changed),
    ]
    assert len({package.digest, *(other.digest for other in others)}) == 7


def test_digest_is_not_of_where_it_comes_from(package):
    same = with_record(package, name="other", provenance={"seed": 1}, metrics={})
    assert same.digest == package.digest


def test_digest_is_not_of_the_tensors_order_or_layout(package):
    weights = {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
        for name, tensor in reversed(package.weights.items())
    }
    assert ModelPackage(RECORD, weights).digest == package.digest


def test_digest_of_literal_weights():
    """Held for ever: tables have rows of it."""
    record = PackageRecord(name="x", architecture=Architecture(), class_names=("a",))
    weights = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    assert ModelPackage(record, weights).digest == "43f8581d5b3ea2aee12d406fb8f90b44203951a8fb7ae7fec20bbe10bc546e4f"


def test_clipped_centres_are_of_the_digest_and_of_the_record_where_they_are_used(package):
    clipping = with_record(package, architecture=Architecture(width=0.1, batch_norm=True, clip_centres=True))
    assert clipping.digest != package.digest
    assert ModelPackage.from_files(clipping.to_files()).record == clipping.record
    assert b"clip_centres" in clipping.to_files()[RECORD_FILE]
    assert b"clip_centres" not in package.to_files()[RECORD_FILE]


def test_tensors_that_do_not_fit_are_named(package):
    weights = dict(package.weights)
    del weights["conv7.0.bias"]
    weights["head.weight"] = torch.zeros(1)
    weights["trunk.0.bias"] = torch.zeros(64)
    with pytest.raises(PackageError) as error:
        ModelPackage(RECORD, weights).network()
    assert str(error.value) == (
        "the weights do not fit the architecture: extra head.weight; missing conv7.0.bias; "
        "trunk.0.bias has shape (64,), not (8,)"
    )


def test_another_number_of_classes_does_not_fit(package):
    with pytest.raises(PackageError, match=r"classification\.0\.bias has shape \(12,\), not \(16,\)"):
        with_record(package, class_names=("disc", "square", "triangle")).network()


def test_unknown_key(package):
    with pytest.raises(PackageError, match=r"model\.json: colour: Extra inputs are not permitted"):
        ModelPackage.from_files(with_json(package, colour="red"))


def test_wrong_value_is_named_by_its_place(package):
    with pytest.raises(PackageError, match=r"model\.json: thresholds\.score_thresh: .* less than or equal to 1"):
        ModelPackage.from_files(with_json(package, thresholds={"score_thresh": 2}))


def test_without_classes_it_is_a_trunk_and_no_network(package):
    trunk = ModelPackage.from_files(with_json(package, class_names=[]))
    with pytest.raises(PackageError, match=r"it holds a trunk alone, to start a training from \(train --init\)"):
        trunk.network()


def test_record_that_is_no_json(package):
    with pytest.raises(PackageError, match=r"model\.json: file: Invalid JSON"):
        ModelPackage.from_files(package.to_files() | {RECORD_FILE: b"not json"})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle in a zip", save({"w": torch.zeros(9)})[:-4]])
def test_weights_that_are_no_safetensors(package, content):
    with pytest.raises(PackageError, match=r"model\.safetensors: not a safetensors file"):
        ModelPackage.from_files(package.to_files() | {WEIGHTS_FILE: content})


def test_weights_that_are_no_numbers_are_named(package):
    weights = dict(package.weights) | {"conv6.0.bias": torch.full_like(package.weights["conv6.0.bias"], torch.nan)}
    with pytest.raises(PackageError, match=r"not finite numbers: conv6\.0\.bias"):
        ModelPackage(package.record, weights).network()


def test_a_missing_file_is_named(package):
    files = package.to_files()
    del files["model.safetensors"]
    with pytest.raises(PackageError, match=r"model\.safetensors missing"):
        ModelPackage.from_files(files)


def test_digest_is_not_of_scaling_that_is_off(package):
    """Packages of before have no such value."""
    assert b"jpeg_dct_scaling" not in package.to_files()["model.json"]
    assert with_record(package, preprocessing=Preprocessing(jpeg_dct_scaling=False)).digest == package.digest


def test_a_least_score_makes_another_digest(package):
    """A number, or the best score of each class; a class that was never found right keeps the threshold."""
    best = with_record(package, metrics={"best_scores": {"disc": 0.4, "square": 1.0}})
    files = PackageFiles(best.to_files())
    changed, by_class = files.with_min_score("0.5"), files.with_min_score("best")
    assert (changed.record.thresholds.score_thresh, changed.record.thresholds.min_scores) == (0.5, ())
    assert (by_class.record.thresholds.score_thresh, by_class.record.thresholds.min_scores) == (0.01, (0.4, 0.01))
    assert len({files.digest, changed.digest, by_class.digest}) == 3
    assert ModelPackage.from_files(by_class.content).digest == by_class.digest


@pytest.mark.parametrize(
    ("metrics", "message"),
    [({}, "it has no best scores"), ({"best_scores": {"disc": 7}}, "metrics.best_scores must be numbers")],
)
def test_a_package_without_best_scores(metrics, message, package):
    files = PackageFiles(with_record(package, metrics=metrics).to_files())
    with pytest.raises(PackageError, match=message):
        files.with_min_score("best")


def test_least_scores_are_of_all_classes(package):
    files = with_json(package, thresholds={"min_scores": [0.5]})
    with pytest.raises(PackageError, match=r"thresholds\.min_scores has 1 entries for 2 classes"):
        ModelPackage.from_files(files)
