"""The network's layers as Markdown tables: `python -m model.describe` prints them, `--write` writes them into the page."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from model.config import Architecture
from model.ssd import SSD, L2Norm
from model.vgg16 import pool_positions, vgg16_trunk

PAGE = Path(__file__).parent / "README.md"
NUM_CLASSES = 21
HEADER = "| layer | parameters | output (C×H×W) | downsampling rate |\n|---|---|---|---|\n"


def tables() -> dict[str, str]:
    """Return the page's tables by name, computed from the modules at width 1."""
    return _trunk() | _after_the_trunk(Architecture()) | _after_the_trunk(Architecture(kind="ssd512_vgg16"), "512")


def _trunk() -> dict[str, str]:
    """Return the tables of VGG16 and of SSD's changes to it, for an input of 3×300×300."""
    with torch.device("meta"):  # shapes without values
        network, plain, image = SSD(Architecture(), NUM_CLASSES), vgg16_trunk(), torch.empty(1, 3, 300, 300)
        conv4_3_map = torch.empty(1, 512, 38, 38)
    plain_rows = list(_trace([(f"({i})", layer) for i, layer in enumerate(plain)], image))
    adapted = [(f"({i})", layer) for i, layer in enumerate(network.trunk)]
    tail = [
        ("conv6", network.conv6[0]),
        ("ReLU", network.conv6[1]),
        ("conv7", network.conv7[0]),
        ("ReLU", network.conv7[1]),
    ]
    adapted_rows = list(_trace(adapted + tail, image))
    norm_row = _trace([("conv4_3_norm", network.conv4_3_norm)], conv4_3_map, rate=8)
    return {
        "vgg16": HEADER + "".join(plain_rows),
        "changes": HEADER + "".join((*adapted_rows[pool_positions(plain)[2] :], *norm_row)),
    }


def _after_the_trunk(architecture: Architecture, suffix: str = "") -> dict[str, str]:
    """Return the tables of the auxiliary convolutions and the heads. The suffix ends the tables' names."""
    with torch.device("meta"):
        network = SSD(architecture, NUM_CLASSES)
        side = architecture.feature_map_sizes[1]
        conv7_map = torch.empty(1, 1024, side, side)
    names = [f"conv{number}_{part}" for number in architecture.auxiliary for part in (1, 2)]
    auxiliary = [pair for name in names for pair in zip((name, "ReLU"), getattr(network, name), strict=True)]
    return {
        f"auxiliary{suffix}": HEADER + "".join(_trace(auxiliary, conv7_map, rate=16)),
        f"localization{suffix}": _heads(architecture, network.localization, 4, "4 offsets"),
        f"classification{suffix}": _heads(architecture, network.classification, NUM_CLASSES, f"{NUM_CLASSES} classes"),
    }


def _trace(layers: list[tuple[str, nn.Module]], x: Tensor, rate: int = 1) -> Iterator[str]:
    """Yield one row per layer, with the size of its output and the product of all strides so far, starting at `rate`."""
    for name, layer in layers:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            rate *= _side(layer.stride)
        _, channels, height, width = x.shape
        yield f"| {name} | {parameters(layer)} | {channels}×{height}×{width} | {rate} |\n"


def _side(value: int | tuple[int, ...]) -> int:
    """Return the only number of a square kernel, stride or padding."""
    return value if isinstance(value, int) else value[0]


def parameters(layer: nn.Module) -> str:
    """Return a layer as text: its type and its arguments."""
    if isinstance(layer, nn.Conv2d):
        sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        kernel, stride, padding, dilation = (_side(size) for size in sizes if not isinstance(size, str))
        extra = f", dilation {dilation}" if dilation != 1 else ""
        return f"Conv2d({layer.in_channels}, {layer.out_channels}, {kernel}×{kernel}, stride {stride}, padding {padding}{extra})"
    if isinstance(layer, nn.MaxPool2d):
        return f"MaxPool2d({layer.kernel_size}×{layer.kernel_size}, stride {layer.stride}, padding {layer.padding}, ceil_mode {layer.ceil_mode})"
    if isinstance(layer, L2Norm):
        return f"L2Norm({len(layer.scale)}), on the output of (22)"
    assert isinstance(layer, nn.ReLU)
    return "ReLU"


def _heads(architecture: Architecture, convolutions: nn.ModuleList, num_values: int, values: str) -> str:
    """Return a table with one row per feature map: its convolution and its default boxes."""
    rows = [
        f"| on | map | default boxes a cell | aspect ratios | parameters: boxes × {values} | default boxes |",
        "|---|---|---|---|---|---|",
    ]
    total = 0
    for index, convolution in enumerate(convolutions):
        size, count = architecture.feature_map_sizes[index], architecture.num_default_boxes_a_cell[index]
        ratios = ", ".join(["1", "1 (larger)"] + [f"{r:g}, 1/{r:g}" for r in architecture.aspect_ratios[index]])
        total += size * size * count
        rows.append(
            f"| {architecture.feature_map_names[index]} | {size}×{size} | {count} | {ratios} | {parameters(convolution)} | {size * size * count} |"
        )
    rows.append(f"| all | | | | each box {num_values} values | {total} |")
    return "\n".join(rows) + "\n"


def filled(page: str) -> str:
    """Return a page with the table of each name between its markers `<!-- name -->` and `<!-- /name -->`.

    The earlier content between the markers is replaced.
    """
    for name, table in tables().items():
        before, start, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        page = before + start + table + end + after
    return page


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write them into {PAGE.name}")
    if parser.parse_args().write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, table in tables().items():
        print(f"{name}\n\n{table}")


if __name__ == "__main__":
    main()
