"""The images per second that a processor could compute at most, if it did nothing but multiply."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from model.config import Precision
from model.engine import DTYPES
from model.package_files import PackageRecord
from model.ssd import network_of_shapes

SIDE, GPU_SIDE = 1024, 4096
"""The sides of the matrices that are multiplied: they stay in a core's cache, or take a GPU's units for longer than its start."""
NUM_PRODUCTS = 20
"""The number of products, of which the fastest counts. On a CPU they take 20 ms to 100 ms."""
MAX_S = 1.0
"""The time after which no other product begins: a CPU without the type of the factors may take seconds for each."""
WINDOW = ("kernel_size", "stride", "padding", "dilation")
"""The settings of a layer that decide the side of its output."""


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

    def side_after(layer: nn.Module, side: int) -> int:
        """Return the side of a layer's output, and count the layer."""
        if isinstance(layer, nn.Sequential):
            for each in layer:
                side = side_after(each, side)
        elif isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding, dilation = (_of_one_axis(getattr(layer, name)) for name in WINDOW)
            free = side + 2 * padding - dilation * (kernel - 1) - 1
            rounds_up = isinstance(layer, nn.MaxPool2d) and layer.ceil_mode
            side = (free + stride - 1 if rounds_up else free) // stride + 1
            if isinstance(layer, nn.Conv2d):
                counts.append(side**2 * layer.weight.numel())
        return side

    network = network_of_shapes(record.architecture, len(record.class_names) + 1)
    sides = network.feature_maps(record.architecture.image_size_px, side_after)
    for side, *heads in zip(sides, network.localization, network.classification, strict=True):
        for head in heads:
            side_after(head, side)
    return sum(counts)


def _of_one_axis(setting: int | tuple[int, ...]) -> int:
    return setting if isinstance(setting, int) else setting[0]


def multiplications_per_s(device: torch.device, precision: Precision) -> float:
    """Measure how many multiplications and additions of a matrix product a device does per second."""
    side = GPU_SIDE if device.type == "cuda" else SIDE
    multiply = _int8_product() if precision == "int8" else _product(device, DTYPES[precision], side)
    seconds: list[float] = []
    with torch.inference_mode():
        while len(seconds) < NUM_PRODUCTS and sum(seconds) < MAX_S:
            begun_s = time.perf_counter()
            multiply()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begun_s)
    return float(side**3 / min(seconds))


def _product(device: torch.device, dtype: torch.dtype, side: int) -> Callable[[], Tensor]:
    """Return a function that multiplies two matrices."""
    return partial(torch.mm, *(torch.ones(side, side, dtype=dtype, device=device) for _ in range(2)))


def _int8_product() -> Callable[[], Tensor]:
    """Return a function that multiplies two matrices on a CPU, where one is packed before, as weights are.

    Packing takes half as long as the product.
    """
    weights = torch.ones(SIDE, SIDE, dtype=torch.int8)
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return partial(torch._int_mm, weights, weights)
    packed = torch.ops.onednn.qlinear_prepack(weights, [SIDE, SIDE])
    pixels, scales, zeros = weights.to(torch.uint8), torch.ones(SIDE), torch.zeros(SIDE, dtype=torch.int64)
    as_they_are = (1.0, 0)  # the scale and the zero point
    return partial(
        torch.ops.onednn.qlinear_pointwise,
        *(pixels, *as_they_are, packed, scales, zeros, None, *as_they_are, torch.uint8, "none", [], ""),
    )
