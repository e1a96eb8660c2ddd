"""The network as Markdown tables: `python -m model.describe` prints them, `--write` writes them into the page.

`--photo FILE` draws the default boxes of one cell of each map on a photograph, as the page shows them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from model.boxes import cxcywh_to_xyxy, decode_boxes, encode_boxes, xyxy_to_cxcywh
from model.config import Architecture
from model.default_boxes import box_shapes, default_boxes
from model.ssd import SSD, L2Norm
from model.vgg16 import STAGES, pool_positions, vgg16_trunk

PAGE = Path(__file__).parent / "README.md"
PICTURE = Path(__file__).parent / "default_boxes.jpg"
PICTURE_SIDE_PX = 240
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#46f0f0")
"""The colours of the default boxes of a cell."""
NUM_CLASSES = 21
HEADER = "| layer | parameters | output (C×H×W) | downsampling rate |\n|---|---|---|---|\n"


def tables() -> dict[str, str]:
    """Return the page's tables by name, computed from the modules at width 1."""
    return (
        _trunk()
        | _after_the_trunk(Architecture())
        | _after_the_trunk(Architecture(kind="ssd512_vgg16"), "512")
        | {"costs": _costs(Architecture()), "coding": _coding(Architecture())}
    )


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
    auxiliary = [
        pair
        for name, layers in network.auxiliary.items()
        for pair in zip((name, "ReLU"), layers.children(), strict=True)
    ]
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


def _costs(architecture: Architecture) -> str:
    """Return a table of what each convolution costs, and how much of the image one of its outputs sees."""
    with torch.device("meta"):
        network = SSD(architecture, NUM_CLASSES)
        x = torch.empty(1, 3, architecture.image_size_px, architecture.image_size_px)
    of_trunk = iter(
        [f"conv{stage}_{number}" for stage, of_stage in enumerate(STAGES, 1) for number in range(1, len(of_stage) + 1)]
    )
    layers = [(next(of_trunk) if isinstance(layer, nn.Conv2d) else "", layer) for layer in network.trunk]
    layers += [("conv6", network.conv6[0]), ("conv7", network.conv7[0])]
    layers += [(name, next(layer.children())) for name, layer in network.auxiliary.items()]
    rows = ["| stage | layer | parameters | multiply-adds | sees (px) |", "|---|---|---|---|---|"]
    stage, sees, step_px, weights, products = "1", 1, 1, 0, 0
    for name, layer in layers:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            sees += (_side(layer.kernel_size) - 1) * _side(layer.dilation) * step_px
            step_px *= _side(layer.stride)
        if isinstance(layer, nn.Conv2d):
            stage = name[4:].partition("_")[0]
            weights, products = weights + _num_weights(layer), products + _num_products(layer, x)
            rows.append(
                f"| {stage} | {name} | {_num_weights(layer):,} | {_num_products(layer, x) / 1e6:,.0f} M | {sees} |"
            )
    for name, heads in (("localization", network.localization), ("classification", network.classification)):
        shapes = [torch.empty(1, 1, side, side, device="meta") for side in architecture.feature_map_sizes]
        num_products = sum(_num_products(head, shape) for head, shape in zip(heads, shapes, strict=True))
        num_weights = sum(map(_num_weights, heads))
        weights, products = weights + num_weights, products + num_products
        rows.append(f"| heads | {name} | {num_weights:,} | {num_products / 1e6:,.0f} M | 16 to 128 more |")
    weights += _num_weights(network.conv4_3_norm)
    rows.append(f"| all | with conv4_3_norm | {weights:,} | {products / 1e6:,.0f} M | |")
    return "\n".join(rows) + "\n"


def _num_weights(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _num_products(layer: nn.Module, output: Tensor) -> int:
    """Return the multiplications of a convolution, from its weights and the places of its output."""
    assert isinstance(layer, nn.Conv2d)
    return layer.weight.numel() * output.shape[2] * output.shape[3]


def _coding(architecture: Architecture) -> str:
    """Return a box of 300×300 pixels, a default box, and the offsets between them, there and back."""
    side_px = architecture.image_size_px
    box = torch.tensor([[60.0, 90.0, 150.0, 210.0]]) / side_px
    of_map = sum(size * size * count for size, count in zip(architecture.feature_map_sizes[:2], (4, 6), strict=True))
    cell = of_map + (4 * 10 + 3) * 6
    default = default_boxes(architecture)[cell : cell + 1]
    offsets = encode_boxes(xyxy_to_cxcywh(box), default)
    rows = {
        "the object, xyxy in pixels": box * side_px,
        "the object, cxcywh in shares": xyxy_to_cxcywh(box),
        "a default box of conv8_2 (row 4, column 3), cxcywh in shares": default,
        "what the localization head learns": offsets,
        "decoded, xyxy in pixels": decode_boxes(offsets, default) * side_px,
    }
    lines = ["| | | | | |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {' | '.join(f'{number:.4g}' for number in values[0].tolist())} |" for name, values in rows.items()
    ]
    return "\n".join(lines) + "\n"


def draw_default_boxes(photo: Image.Image, architecture: Architecture) -> Image.Image:
    """Return the photograph once per feature map, with the default boxes of a cell in the middle of each map."""
    sizes, side = architecture.feature_map_sizes, PICTURE_SIDE_PX
    small = photo.convert("RGB").resize((side, side))
    sheet = Image.new("RGB", (side * ((len(sizes) + 1) // 2), 2 * side), "white")
    for index, size in enumerate(sizes):
        shapes = box_shapes(architecture, index).clamp(0, 1)
        cell = (size // 2 + 0.5) * architecture.steps_px[index] / architecture.image_size_px
        boxes = cxcywh_to_xyxy(torch.cat((torch.full_like(shapes, cell), shapes), dim=1)).clamp(0, 1) * (side - 1)
        panel = small.copy()
        draw = ImageDraw.Draw(panel)
        for box, colour in zip(boxes.tolist(), COLOURS, strict=False):
            draw.rectangle(box, outline=colour, width=2)
        draw.rectangle((0, 0, 108, 14), fill="white")
        draw.text((3, 1), f"{architecture.feature_map_names[index]}: {size}x{size}", fill="black")
        sheet.paste(panel, (index // 2 * side, index % 2 * side))
    return sheet


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
    parser.add_argument("--photo", type=Path, help=f"draw {PICTURE.name} on this photograph")
    arguments = parser.parse_args()
    if arguments.photo:
        draw_default_boxes(Image.open(arguments.photo), Architecture()).save(PICTURE, quality=85)
        return
    if arguments.write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, table in tables().items():
        print(f"{name}\n\n{table}")


if __name__ == "__main__":
    main()
