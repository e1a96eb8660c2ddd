"""The part of the plane that a training example shows, as one window over its image that is resized once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.preprocess import resize


@dataclass(frozen=True)
class Window:
    """A window over an image. Zooming out makes it larger than the image, and a crop makes it smaller.

    However large the window is, only the part of the image that it shows is read, and only the network's input is painted.
    """

    left: int
    """The first column, in pixels of the image; negative where the window begins beside the image."""
    top: int
    right: int
    """The column behind the last one."""
    bottom: int
    is_mirrored: bool = False
    """Swaps left and right."""
    is_upside_down: bool = False
    """Swaps above and below."""

    def show(
        self, image: Tensor, boxes_xyxy: Tensor, size_px: tuple[int, int], fill: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the window shows.

        Args:
            image: (3, H, W) uint8 RGB. The window shows at least one of its pixels.
            boxes_xyxy: (N, 4) float, in pixels of the image.
            size_px: the width and height to resize the window to.
            fill: (3,) uint8, the colour beside the image.

        Returns:
            The pixels (3, height, width) uint8, the boxes (N, 4) float, and (4,) int64, the part that shows the image. Both are in
            pixels of the result. The borders of the image come to lie on whole pixels, and the boxes move with them.
        """
        width_px, height_px = size_px
        across = _Side.of(self.left, self.right, image.shape[-1], width_px)
        down = _Side.of(self.top, self.bottom, image.shape[-2], height_px)
        part = image[:, down.first : down.end, across.first : across.end]
        pixels = resize(part, (down.to_end - down.to_first, across.to_end - across.to_first))
        if pixels.shape[1:] != (height_px, width_px):
            canvas = fill.expand(height_px, width_px, 3).clone().permute(2, 0, 1)
            canvas[:, down.to_first : down.to_end, across.to_first : across.to_end] = pixels
            pixels = canvas
        of_part = boxes_xyxy.new_tensor([[across.first, down.first, across.end, down.end]])
        x_min, y_min, x_max, y_max = torch.cat((boxes_xyxy, of_part)).unbind(1)
        x_min, x_max, y_min, y_max = across.moved(x_min), across.moved(x_max), down.moved(y_min), down.moved(y_max)
        if self.is_mirrored:
            pixels, x_min, x_max = pixels.flip(-1), width_px - x_max, width_px - x_min
        if self.is_upside_down:
            pixels, y_min, y_max = pixels.flip(-2), height_px - y_max, height_px - y_min
        moved = torch.stack((x_min, y_min, x_max, y_max), dim=1)
        return pixels, moved[:-1], moved[-1].round().long()


@dataclass(frozen=True)
class _Side:
    """The columns (or rows) of an image that a window shows, and where they come to lie in the result."""

    first: int
    end: int
    to_first: int
    to_end: int

    @classmethod
    def of(cls, start: int, stop: int, num_pixels: int, num_shown: int) -> "_Side":
        """Return the columns of an image of `num_pixels` that the window from `start` to `stop` shows on `num_shown` pixels."""
        first, end = max(start, 0), min(stop, num_pixels)
        to_first, to_end = (round((column - start) * num_shown / (stop - start)) for column in (first, end))
        to_first = min(to_first, num_shown - 1)
        return cls(first, end, to_first, max(to_end, to_first + 1))

    def moved(self, column: Tensor) -> Tensor:
        """Return positions in the image as positions in the result."""
        return self.to_first + (column - self.first) * ((self.to_end - self.to_first) / (self.end - self.first))
