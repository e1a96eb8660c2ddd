"""The boxes that SSD regresses from: a fixed set at each cell of each feature map."""

import math

import torch
from torch import Tensor

from model.config import Architecture


def default_boxes(architecture: Architecture) -> Tensor:
    """Return all default boxes, in the order of the heads' outputs: map, row, column, box.

    Returns:
        (A, 4) float32, cxcywh as shares of the input; A is 8732 for SSD300, 24564 for SSD512. Sides are at most 1.
        Boxes may reach over the border. SSD300's last centres of the 10×10 map lie 4 px outside (9.5 · 32 = 304),
        unless the architecture clips centres.

    Source: Liu et al. 2016, section 2.2, "Choosing scales and aspect ratios". Order and clipping are torchvision's.
    """
    maps = []
    for index, size in enumerate(architecture.feature_map_sizes):
        cells = architecture.image_size_px / architecture.steps_px[index]
        centres = (torch.arange(size, dtype=torch.float32) + 0.5) / cells
        cy, cx = torch.meshgrid(centres, centres, indexing="ij")
        centres_cxcy = torch.stack((cx, cy), dim=-1).reshape(-1, 1, 2)
        if architecture.clip_centres:
            centres_cxcy = centres_cxcy.clamp(0, 1)
        shapes_wh = box_shapes(architecture, index).clamp(0, 1)
        boxes = torch.cat(
            (centres_cxcy.expand(-1, len(shapes_wh), -1), shapes_wh.expand(len(centres_cxcy), -1, -1)), dim=-1
        )
        maps.append(boxes.reshape(-1, 4))
    return torch.cat(maps)


def box_shapes(architecture: Architecture, map_index: int) -> Tensor:
    """Return the widths and heights of one cell's boxes: (K, 2) float32, as shares of the image, not clipped.

    The order is: a square of the map's scale, a square of the geometric mean with the next scale, then r and 1/r for
    each ratio.
    """
    scale, next_scale = architecture.scales[map_index : map_index + 2]
    between = math.sqrt(scale * next_scale)
    shapes = [(scale, scale), (between, between)]
    for ratio in architecture.aspect_ratios[map_index]:
        wide, narrow = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        shapes += [(wide, narrow), (narrow, wide)]
    return torch.tensor(shapes, dtype=torch.float32)
