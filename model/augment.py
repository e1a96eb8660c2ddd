"""The geometric training augmentation of SSD: zoom out, IoU crop, flips."""

import torch
from torch import Tensor

from model.boxes import pairwise_iou
from model.config import Preprocessing, TrainingSettings
from model.loss import IGNORED

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
        preprocessing: its mean is the colour of the area that zooming out adds.
        settings: the largest zoom out and the smallest crop.

    Source: Liu et al. 2016, section 2.2 "Data augmentation" and section 3.6 (zoom out).
    """

    def __init__(self, preprocessing: Preprocessing, settings: TrainingSettings) -> None:
        fill = [round(255 * mean) for mean in preprocessing.mean]
        self._fill = torch.tensor(fill, dtype=torch.uint8)[:, None, None]
        self._zoom_out_max, self._crop_min = settings.zoom_out_max, settings.crop_min

    def __call__(self, image: Tensor, boxes_xyxy: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Change one example at random; objects may be cut away.

        Args:
            image: (3, H, W) uint8 RGB.
            boxes_xyxy: (N, 4) float pixels.
            labels: (N,) int64; regions with the label `IGNORED` are moved as objects are, but no crop is drawn around them.

        Returns:
            The image, boxes and labels in the same formats, with another size and another N. Random numbers come from
            torch's global generator.
        """
        boxes = boxes_xyxy.float()
        if self._zoom_out_max > 1 and torch.rand(()) < 0.5:
            image, boxes = self._zoomed_out(image, boxes)
        if self._crop_min < 1 and (crop := draw_crop(boxes[labels > 0], size_of(image), self._crop_min)) is not None:
            is_within = _centres_within(boxes, crop[None])[0] | ((labels == IGNORED) & _overlaps(boxes, crop))
            image, boxes, labels = *_cut(image, boxes[is_within], crop), labels[is_within]
        if torch.rand(()) < 0.5:
            image, boxes = image.flip(-1), _mirrored(boxes, image.shape[-1])
        is_inside = (boxes >= 0).all(dim=1) & (boxes <= size_of(image).repeat(2)).all(dim=1)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        return image, boxes[is_inside & has_area], labels[is_inside & has_area]

    def _zoomed_out(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Place the image at random on a larger canvas, and move its boxes with it."""
        channels, height_px, width_px = image.shape
        times = 1 + torch.rand(()) * (self._zoom_out_max - 1)
        canvas_width, canvas_height = int(width_px * times), int(height_px * times)
        at = torch.rand(2)
        left, top = int((canvas_width - width_px) * at[0]), int((canvas_height - height_px) * at[1])
        canvas = self._fill.expand(channels, canvas_height, canvas_width).clone()
        canvas[:, top : top + height_px, left : left + width_px] = image
        return canvas, boxes + torch.tensor([left, top, left, top])


def size_of(image: Tensor) -> Tensor:
    """Return width and height of an image (3, H, W), as (2,) int64."""
    return torch.tensor([image.shape[-1], image.shape[-2]])


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


def _cut(image: Tensor, boxes: Tensor, crop: Tensor) -> tuple[Tensor, Tensor]:
    """Return a crop of an image, and the boxes clipped to the crop, in its pixels."""
    left, top, right, bottom = crop.tolist()
    size = torch.tensor([right - left, bottom - top]).repeat(2)
    return image[:, top:bottom, left:right], (boxes - crop[:2].repeat(2)).clamp(min=torch.zeros(4), max=size)


def _mirrored(boxes: Tensor, width_px: int) -> Tensor:
    """Return the boxes of the horizontally flipped image."""
    return torch.stack((width_px - boxes[:, 2], boxes[:, 1], width_px - boxes[:, 0], boxes[:, 3]), dim=1)


def vertical_flip(image: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Flip an image and its boxes vertically, half the time.

    This suits pictures without an up, such as those of a microscope.
    """
    if torch.rand(()) < 0.5:
        return image, boxes_xyxy
    height = image.shape[-2]
    return image.flip(-2), torch.stack(
        (boxes_xyxy[:, 0], height - boxes_xyxy[:, 3], boxes_xyxy[:, 2], height - boxes_xyxy[:, 1]), dim=1
    )
