"""SSD's training augmentation, from torchvision's `transforms.v2`."""

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from model.config import Preprocessing


class Augmentation:
    """Photometric distortion, zoom out, IoU crop, flip: the paper's, each with its usual probability.

    Args:
        preprocessing: its mean fills what zooming out adds.
        rescale: zoom out and crop; without, objects keep their size.

    Source: Liu et al. 2016, section 2.2 "Data augmentation" and section 3.6 (zoom out).
    """

    def __init__(self, preprocessing: Preprocessing, rescale: bool = True) -> None:
        fill = [round(255 * mean) for mean in preprocessing.mean]
        zoom_and_crop = [v2.RandomZoomOut(fill=fill, side_range=(1, 2.5), p=0.4), v2.RandomIoUCrop()]
        self._transform = v2.Compose(
            [
                v2.RandomPhotometricDistort(p=0.5),
                *(zoom_and_crop if rescale else []),
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


def vertical_flip(image: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Upside down, half the time: for pictures without an up, such as those of a microscope."""
    if torch.rand(()) < 0.5:
        return image, boxes_xyxy
    height = image.shape[-2]
    return image.flip(-2), torch.stack(
        (boxes_xyxy[:, 0], height - boxes_xyxy[:, 3], boxes_xyxy[:, 2], height - boxes_xyxy[:, 1]), dim=1
    )
