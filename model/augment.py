"""SSD's geometric training augmentation, from torchvision's `transforms.v2`."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from model.config import Preprocessing, TrainingSettings


class Augmentation:
    """Zoom out, IoU crop, flip: the paper's, each with its usual probability.

    Args:
        preprocessing: its mean fills what zooming out adds.
        settings: how far to zoom out, and how little to crop to.

    Source: Liu et al. 2016, section 2.2 "Data augmentation" and section 3.6 (zoom out).
    """

    def __init__(self, preprocessing: Preprocessing, settings: TrainingSettings) -> None:
        fill = [round(255 * mean) for mean in preprocessing.mean]
        zoom_out = v2.RandomZoomOut(fill=fill, side_range=(1, settings.zoom_out_max))
        self._transform = v2.Compose(
            [
                *([zoom_out] if settings.zoom_out_max > 1 else []),
                *([IoUCrop(min_scale=settings.crop_min)] if settings.crop_min < 1 else []),
                v2.RandomHorizontalFlip(),
                v2.SanitizeBoundingBoxes(min_size=3),
            ]
        )

    def __call__(self, image: Tensor, boxes_xyxy: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One example, randomly changed; objects may be cut away.

        Args:
            image: (3, H, W) uint8 RGB.
            boxes_xyxy: (N, 4) float pixels.
            labels: (N,) int64.

        Returns:
            The three in the same formats, of another size and another N. Randomness is torch's global generator.
        """
        boxes = tv_tensors.BoundingBoxes(boxes_xyxy, format="XYXY", canvas_size=tuple(image.shape[-2:]))
        changed, target = self._transform(tv_tensors.Image(image), {"boxes": boxes, "labels": labels})
        return changed.as_subclass(Tensor), target["boxes"].as_subclass(Tensor).float(), target["labels"]


class IoUCrop(v2.RandomIoUCrop):  # type: ignore[misc]
    """torchvision's, which looks for a crop with one trial after the other, with all trials at once: 8 ms become 1.

    Chosen is the first trial that has an object's centre in it and overlaps such an object by the IoU drawn.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The crop, and which objects have their centres in it; nothing = the whole image."""
        (boxes,) = (value for value in flat_inputs if isinstance(value, tv_tensors.BoundingBoxes))
        size_px = torch.tensor(boxes.canvas_size[::-1])
        boxes_xyxy = boxes.as_subclass(Tensor)
        while (min_iou := self.options[int(torch.randint(len(self.options), ()))]) < 1:
            crops = self._trials(size_px)
            is_within = _centres_within(boxes_xyxy, crops)
            fits = (is_within & (box_iou(crops, boxes_xyxy) >= min_iou)).any(dim=1) & self._is_shapely(crops)
            if fits.any():
                first = int(fits.int().argmax())
                left, top, right, bottom = crops[first].int().tolist()
                return {
                    "left": left,
                    "top": top,
                    "width": right - left,
                    "height": bottom - top,
                    "is_within_crop_area": is_within[first],
                }
        return {}

    def _trials(self, size_px: Tensor) -> Tensor:
        """(T, 4) float xyxy in whole pixels, anywhere in the image."""
        share = self.min_scale + (self.max_scale - self.min_scale) * torch.rand(self.trials, 2)
        sides = (size_px * share).floor()
        corners = ((size_px - sides) * torch.rand(self.trials, 2)).floor()
        return torch.cat((corners, corners + sides), dim=1)

    def _is_shapely(self, crops: Tensor) -> Tensor:
        """(T,) bool: neither too long nor too high, nor empty."""
        width, height = (crops[:, 2:] - crops[:, :2]).unbind(1)
        aspect = width / height
        is_shapely: Tensor = (aspect >= self.min_aspect_ratio) & (aspect <= self.max_aspect_ratio)
        return is_shapely


def _centres_within(boxes_xyxy: Tensor, crops: Tensor) -> Tensor:
    """(T, N) bool, whether each of T crops has the centre of each of N boxes in it."""
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    is_within: Tensor = ((centres > crops[:, None, :2]) & (centres < crops[:, None, 2:])).all(dim=2)
    return is_within


def vertical_flip(image: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Upside down, half the time: for pictures without an up, such as those of a microscope."""
    if torch.rand(()) < 0.5:
        return image, boxes_xyxy
    height = image.shape[-2]
    return image.flip(-2), torch.stack(
        (boxes_xyxy[:, 0], height - boxes_xyxy[:, 3], boxes_xyxy[:, 2], height - boxes_xyxy[:, 1]), dim=1
    )
