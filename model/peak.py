"""The images per second that a processor could compute at most, if it did nothing but multiply."""

import time

import torch
from torch import Tensor, nn

from model.config import Precision
from model.engine import DTYPES
from model.package_files import PackageRecord
from model.ssd import SSD

SIDE = 1024
"""The side of the matrices that are multiplied: they stay in a core's cache, and are long enough for a GPU's units."""
NUM_PRODUCTS = 20
"""The number of products, of which the fastest counts. On a CPU they take 20 ms to 100 ms."""


def peak_images_per_s(record: PackageRecord, device: torch.device, precision: Precision) -> float:
    """Measure the upper limit of a detector's speed: multiplications per second by those that an image needs.

    Args:
        record: the model, whose convolutions are counted.
        device: the device, with as many threads as torch has now.
        precision: the type of the factors.
    """
    return multiplications_per_s(device, precision) / num_multiplications(record)


def num_multiplications(record: PackageRecord) -> int:
    """Count the multiplications of an image's convolutions: 34.9e9 for SSD300 with 91 classes."""
    counts = []

    def count(layer: nn.Module, inputs: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        counts.append(output.numel() * layer.weight[0].numel())

    with torch.device("meta"):  # shapes without values
        network = SSD(record.architecture, len(record.class_names) + 1).eval()
        side = record.architecture.image_size_px
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        network(torch.empty(1, 3, side, side))
    return sum(counts)


def multiplications_per_s(device: torch.device, precision: Precision) -> float:
    """Measure how many multiplications and additions of a matrix product a device does per second."""
    if precision == "int8":
        factors = [torch.ones(SIDE, SIDE, dtype=torch.int8, device=device) for _ in range(2)]
        multiply = torch._int_mm
    else:
        factors = [torch.ones(SIDE, SIDE, dtype=DTYPES[precision], device=device) for _ in range(2)]
        multiply = torch.mm
    seconds = []
    for _ in range(NUM_PRODUCTS):
        begun_s = time.perf_counter()
        multiply(*factors)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun_s)
    return float(SIDE**3 / min(seconds))
