"""The two compiled functions of torchvision that inference needs, without its Python modules.

Importing those modules takes 1.4 s of processor time, most of it for a compiler that is not used here. Each worker
would spend this time.
"""

import importlib
import importlib.util
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap better ones; see `torchvision.ops.nms`.

    Args:
        boxes: (N, 4) float, xyxy.
        scores: (N,) of the same type.
        iou_threshold: a box is suppressed when its IoU with a better one is above this.

    Returns:
        (K,) int64, the boxes that are kept, best first.
    """
    _load("_C", "torchvision.ops")
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores, iou_threshold)
    return kept


def decode_jpeg(data: Tensor) -> Tensor:
    """Decode a JPEG; see `torchvision.io.decode_jpeg`.

    Args:
        data: (N,) uint8, a file's content.

    Returns:
        (3, H, W) uint8 RGB in channels-last memory, as stored: EXIF's orientation is not applied.

    Raises:
        RuntimeError: libjpeg can't decode it.
    """
    _load("image", "torchvision.io")
    rgb, turn_upright = 3, False
    pixels: Tensor = torch.ops.image.decode_jpeg(data, rgb, turn_upright)
    return pixels


@cache
def _load(library: str, module: str) -> None:
    """Load one of torchvision's libraries; where it has another name, import the module that loads it."""
    found = importlib.util.find_spec("torchvision")
    folders = found.submodule_search_locations if found else None
    files = [file for folder in folders or () for file in Path(folder).glob(f"{library}*.so")]
    if len(files) == 1:
        torch.ops.load_library(str(files[0]))  # type: ignore[no-untyped-call]
    else:
        importlib.import_module(module)
