import pytest
import torch
from torch import Tensor, nn

from model.config import Architecture
from model.package_files import PackageRecord
from model.peak import multiplications_per_s, num_multiplications
from model.ssd import SSD


@pytest.mark.parametrize("shape", [{}, {"kind": "ssd512_vgg16"}, {"batch_norm": True}])
def test_the_multiplications_are_those_of_a_forward_pass(shape: dict[str, object]) -> None:
    record = PackageRecord(name="narrow", architecture=Architecture(width=0.05, **shape), class_names=("a", "b"))
    network, counts = SSD(record.architecture, 3).eval(), []

    def count(layer: nn.Conv2d, inputs: object, output: Tensor) -> None:
        counts.append(output.numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    side = record.architecture.image_size_px
    with torch.inference_mode():
        network(torch.zeros(1, 3, side, side))
    assert num_multiplications(record) == sum(counts)


def test_ssd300_of_coco() -> None:
    record = PackageRecord(name="full", architecture=Architecture(), class_names=tuple(f"c{i}" for i in range(90)))
    assert num_multiplications(record) == pytest.approx(34.9e9, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_processor_multiplies(precision) -> None:
    assert 1e8 < multiplications_per_s(torch.device("cpu"), precision) < 1e15
