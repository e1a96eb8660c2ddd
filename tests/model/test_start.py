"""What a network takes over from a detector: its trunk, and the rows of its heads for the classes that both have."""

import pytest
import torch
from torch import Tensor

from model.config import Architecture
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.ssd import SSD
from model.start import inherit

OLD = ("disc", "square")
SCALES = (0.05, 0.1, 0.25, 0.4, 0.6, 0.8, 1.0)


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    torch.manual_seed(0)
    record = PackageRecord(name="shapes", architecture=Architecture(width=0.1, batch_norm=True), class_names=OLD)
    return ModelPackage(record, SSD(record.architecture, 3).state_dict())


def rows(tensor: Tensor, num_classes: int) -> Tensor:
    """A head's tensor by default box and class."""
    return tensor.unflatten(0, (-1, num_classes))


def heads(weights: dict[str, Tensor], end: str = "weight") -> list[Tensor]:
    return [tensor for name, tensor in weights.items() if name.startswith("classification.") and name.endswith(end)]


def test_the_same_classes_keep_everything(package):
    found = inherit(package, package.record.architecture, OLD)
    assert found.class_names == OLD
    assert found.weights.keys() == package.weights.keys()
    assert all(torch.equal(tensor, package.weights[name]) for name, tensor in found.weights.items())


def test_rows_are_taken_over_by_the_names_of_classes(package):
    """In another order, with others between them. Background comes first, always."""
    names = ("star", "square", "ring", "disc")
    found = inherit(package, package.record.architecture, names)
    assert found.class_names == ("square", "disc")
    assert found.weights.keys() == package.weights.keys()
    for new, old in zip(heads(found.weights), heads(package.weights), strict=True):
        assert torch.equal(rows(new, 5)[:, [0, 2, 4]], rows(old, 3)[:, [0, 2, 1]])
        fresh = rows(new, 5)[:, [1, 3]]
        assert 0 < fresh.abs().mean() < 0.2
        assert not torch.equal(fresh[:, 0], fresh[:, 1])
    for new, old in zip(heads(found.weights, "bias"), heads(package.weights, "bias"), strict=True):
        assert torch.equal(rows(new, 5)[:, [0, 2, 4]], rows(old, 3)[:, [0, 2, 1]])
        assert not rows(new, 5)[:, [1, 3]].any()
    network = SSD(package.record.architecture, 5)
    network.load_state_dict(found.weights)


def test_a_map_renames_classes(package):
    found = inherit(package, package.record.architecture, ("circle",), {"disc": "circle"})
    assert found.class_names == ("circle",)
    for new, old in zip(heads(found.weights), heads(package.weights), strict=True):
        assert torch.equal(rows(new, 2), rows(old, 3)[:, :2])


def test_random_rows_are_those_of_a_seed(package):
    first, again, other = (inherit(package, package.record.architecture, ("star",), seed=seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, heads(first.weights), heads(again.weights)))
    assert not any(map(torch.equal, heads(first.weights), heads(other.weights)))


def test_another_architecture_takes_over_the_trunk_but_no_head(package):
    """Its feature maps are others."""
    found = inherit(package, Architecture(kind="ssd512_vgg16", width=0.1, batch_norm=True), OLD)
    layers = {name.partition(".")[0] for name in found.weights}
    assert {"trunk", "conv6", "conv7"} <= layers
    assert not {"classification", "localization"} & layers
    assert found.class_names == ()


def test_other_default_boxes_keep_the_heads(package):
    scaled = Architecture(width=0.1, batch_norm=True, scales=SCALES)
    assert inherit(package, scaled, OLD).weights.keys() == package.weights.keys()
    more = Architecture(width=0.1, batch_norm=True, aspect_ratios=((2.0, 3.0),) * 6)
    found = inherit(package, more, OLD)  # some maps have more boxes per cell
    assert sorted({name for name in package.weights} - found.weights.keys()) == sorted(
        f"{head}.{i}.{end}"
        for head in ("classification", "localization")
        for i in (0, 4, 5)
        for end in ("weight", "bias")
    )


def test_another_width_takes_over_nothing_of_the_heads(package):
    found = inherit(package, Architecture(width=0.5, batch_norm=True), OLD)
    assert found.class_names == ()
    assert not any(name.startswith("classification.") for name in found.weights)
    assert "conv6.0.weight" not in found.weights


def test_a_trunk_has_no_classes(package):
    record = package.record.model_copy(update={"class_names": ()})
    trunk = {name: tensor for name, tensor in package.weights.items() if name.startswith("trunk.")}
    found = inherit(ModelPackage(record, trunk), package.record.architecture, OLD)
    assert found.weights.keys() == trunk.keys()
    assert found.class_names == ()


def test_weights_in_float16_stay_so(package):
    halves = ModelPackage(package.record, {name: tensor.half() for name, tensor in package.weights.items()})
    found = inherit(halves, package.record.architecture, ("star", "disc"))
    assert {tensor.dtype for tensor in heads(found.weights)} == {torch.float16}
