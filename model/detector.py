"""The detector: uint8 pixels in, detections out. The same code runs on CPU and GPU."""

import torch
from torch import Tensor

from model.config import Precision
from model.default_boxes import default_boxes
from model.engine import open_engine
from model.package import ModelPackage
from model.peak import peak_images_per_s
from model.postprocess import Detections, postprocess


class OutputError(ArithmeticError):
    """The network's outputs are infinite or NaN."""


class Detector:
    """A model on a device.

    Args:
        package: the model.
        device: the device that it runs on.
        precision: the precision of the network. Decoding, scores and suppression are float32 or better.
        num_images: the number of images that it will see, if there are many; see `model.engine.open_engine`.
    """

    def __init__(
        self, package: ModelPackage, device: torch.device, precision: Precision = "auto", num_images: int = 0
    ) -> None:
        self.device = device
        self.record = package.record
        self.image_size_px = package.record.architecture.image_size_px
        self._engine = open_engine(package, device, precision, num_images)
        defaults = default_boxes(package.record.architecture).to(device)
        self._flips = package.record.preprocessing.test_time_flip
        self._default_boxes = torch.cat((defaults, mirrored(defaults))) if self._flips else defaults

    @property
    def engine(self) -> str:
        """The library that computes the network, and the precision: "torch 2.9.0 bf16"."""
        return f"{self._engine.runtime} {self._engine.precision}"

    def peak_images_per_s(self) -> float:
        """Measure the upper limit of this detector's speed; see `model.peak`."""
        peak = peak_images_per_s(self.record, self.device, self._engine.precision)
        return peak / 2 if self._flips else peak  # which computes each image twice

    @torch.inference_mode()
    def __call__(self, images: Tensor, sizes_px: Tensor) -> list[Detections]:
        """Detect objects in a batch of images.

        Args:
            images: (B, 3, S, S) uint8 RGB, resized by `model.preprocess.resize`; S is `image_size_px`.
            sizes_px: (B, 2) float, the original width and height of each image.

        Returns:
            One `Detections` per image, with boxes in pixels of the original, on the CPU.

        Raises:
            OutputError: the outputs of an image are infinite or NaN, and would look like no detections.
        """
        if not len(images):
            return []
        offsets, logits = self._raw(images)
        if not all(_are_finite(outputs) for outputs in (offsets, logits)):
            raise OutputError("the network's outputs are infinite or NaN")
        return postprocess(offsets, logits, self._default_boxes, sizes_px.to(self.device), self.record.thresholds)

    def _raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw outputs for all default boxes. If images are flipped, those of the mirror images come after the others."""
        offsets, logits = self._engine(images)
        if not self._flips:
            return offsets, logits
        offsets, logits = offsets.clone(), logits.clone()  # an engine's outputs are valid until its next call
        flipped_offsets, flipped_logits = self._engine(images.flip(-1))
        turned = flipped_offsets * flipped_offsets.new_tensor([-1, 1, 1, 1])
        return torch.cat((offsets, turned), dim=1), torch.cat((logits, flipped_logits), dim=1)


def mirrored(boxes_cxcywh: Tensor) -> Tensor:
    """Return the boxes of the mirror image: (A, 4) cxcywh in [0, 1]. A mirrored default box, and a negated first offset, give a mirrored box."""
    return torch.cat((1 - boxes_cxcywh[:, :1], boxes_cxcywh[:, 1:]), dim=1)


def _are_finite(outputs: Tensor) -> bool:
    """Return whether all numbers are finite. Infinite ones are the least or the greatest, and NaN is both."""
    least, greatest = outputs.aminmax()
    return bool(least.isfinite() & greatest.isfinite())
