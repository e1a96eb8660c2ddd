"""The geometric training augmentation of SSD: zoom out, IoU crop, flips. It draws a window, and touches no pixel."""

import torch
from torch import Tensor

from model.boxes import pairwise_iou
from model.colours import is_half
from model.config import TrainingSettings
from model.loss import IGNORED
from model.window import Window

MIN_IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""The least overlaps (IoU) of a crop with an object, one of which is drawn; at 1 the crop is the whole image.

Source: Liu et al. 2016, section 2.2.
"""
NUM_TRIALS = 40
"""The number of crops that are tried before another least overlap is drawn."""
MAX_ASPECT = 2.0
"""The largest ratio of a crop's longer side to its shorter side."""


class Augmentation:
    """The paper's augmentation: zoom out, IoU crop and flip, each with its usual probability.

    Args:
        settings: the largest zoom out, the smallest crop, and whether to flip vertically, too.

    Source: Liu et al. 2016, section 2.2 "Data augmentation" and section 3.6 (zoom out).
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self._settings = settings

    def __call__(self, size_px: tuple[int, int], boxes_xyxy: Tensor, labels: Tensor) -> tuple[Window, Tensor, Tensor]:
        """Draw what an example shows of an image. Objects may be cut away.

        Args:
            size_px: the width and height of the image.
            boxes_xyxy: (N, 4) float pixels.
            labels: (N,) int64; regions with the label `IGNORED` are moved as objects are, but no crop is drawn around them.

        Returns:
            The window, and the boxes and labels of what it shows, clipped to it, in pixels of the image. Random numbers come from torch's
            global generator.
        """
        boxes, canvas = boxes_xyxy.float(), torch.tensor([0, 0, *size_px])
        if self._settings.zoom_out_max > 1 and is_half():
            canvas = _zoomed_out(size_px, self._settings.zoom_out_max)
        if self._settings.crop_min < 1:
            origin = canvas[:2].repeat(2)
            is_seen = _centres_within(boxes, torch.tensor([[0, 0, *size_px]]))[
                0
            ]  # else a crop might show nothing of the image
            crop = draw_crop(boxes[(labels > 0) & is_seen] - origin, canvas[2:] - canvas[:2], self._settings.crop_min)
            if crop is not None:
                canvas = crop + origin
                is_within = _centres_within(boxes, canvas[None])[0] | ((labels == IGNORED) & _overlaps(boxes, canvas))
                boxes, labels = _clipped(boxes[is_within], canvas), labels[is_within]
        is_mirrored, is_upside_down = is_half(), self._settings.vertical_flip and is_half()
        is_inside = (boxes[:, :2] >= canvas[:2]).all(dim=1) & (boxes[:, 2:] <= canvas[2:]).all(dim=1)
        is_shown = is_inside & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        left, top, right, bottom = canvas.tolist()
        window = Window(left, top, right, bottom, is_mirrored, is_upside_down)
        return window, boxes[is_shown], labels[is_shown]


def _zoomed_out(size_px: tuple[int, int], zoom_out_max: float) -> Tensor:
    """Return a larger window around an image, the image at a random place in it: (4,) int64, xyxy in pixels of the image."""
    times = 1 + torch.rand(()) * (zoom_out_max - 1)
    width, height = int(size_px[0] * times), int(size_px[1] * times)
    at = torch.rand(2)
    left, top = int((width - size_px[0]) * at[0]), int((height - size_px[1]) * at[1])
    return torch.tensor([-left, -top, width - left, height - top])


def draw_crop(boxes_xyxy: Tensor, size_px: Tensor, min_scale: float) -> Tensor | None:
    """Draw a crop that contains an object's centre, and overlaps that object by at least a drawn IoU.

    The first trial that fits is returned.

    Args:
        boxes_xyxy: (N, 4) float pixels.
        size_px: (2,), the image's width and height.
        min_scale: the least share of each side that a crop keeps.

    Returns:
        (4,) int64, xyxy in pixels, or None for the whole image.
    """
    while (min_iou := MIN_IOUS[int(torch.randint(len(MIN_IOUS), ()))]) < 1:
        crops = _trials(size_px, min_scale)
        overlaps = _centres_within(boxes_xyxy, crops) & (pairwise_iou(crops, boxes_xyxy) >= min_iou)
        fits = overlaps.any(dim=1) & _is_shapely(crops)
        if fits.any():
            return crops[int(fits.int().argmax())].long()
    return None


def _trials(size_px: Tensor, min_scale: float) -> Tensor:
    """Return crops at random places in the image: (T, 4) float, xyxy in whole pixels."""
    share = min_scale + (1 - min_scale) * torch.rand(NUM_TRIALS, 2)
    sides = (size_px * share).floor()
    corners = ((size_px - sides) * torch.rand(NUM_TRIALS, 2)).floor()
    return torch.cat((corners, corners + sides), dim=1)


def _is_shapely(crops: Tensor) -> Tensor:
    """Return (T,) bool: whether each crop is neither too wide nor too high, nor empty."""
    width, height = (crops[:, 2:] - crops[:, :2]).unbind(1)
    aspect = width / height
    is_shapely: Tensor = (aspect >= 1 / MAX_ASPECT) & (aspect <= MAX_ASPECT)
    return is_shapely


def _centres_within(boxes_xyxy: Tensor, crops: Tensor) -> Tensor:
    """Return (T, N) bool: whether each of T crops contains the centre of each of N boxes."""
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    is_within: Tensor = ((centres > crops[:, None, :2]) & (centres < crops[:, None, 2:])).all(dim=2)
    return is_within


def _overlaps(boxes_xyxy: Tensor, crop: Tensor) -> Tensor:
    """Return (N,) bool: whether a crop shows a part of each of N boxes."""
    is_shown: Tensor = ((boxes_xyxy[:, :2] < crop[2:]) & (boxes_xyxy[:, 2:] > crop[:2])).all(dim=1)
    return is_shown


def _clipped(boxes_xyxy: Tensor, crop: Tensor) -> Tensor:
    """Return the boxes clipped to a crop."""
    low, high = crop[:2].repeat(2), crop[2:].repeat(2)
    return boxes_xyxy.clamp(min=low, max=high)
