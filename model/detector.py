"""The detector: uint8 pixels in, detections out. The same code runs on CPU and GPU."""

import torch
from torch import Tensor

from model.config import Precision
from model.default_boxes import default_boxes
from model.engine import open_engine
from model.example import Examples, Truth
from model.package import ModelPackage
from model.peak import peak_images_per_s
from model.postprocess import Detections, postprocess
from model.preprocess import resize


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
        self._default_boxes = default_boxes(package.record.architecture).to(device)

    @property
    def engine(self) -> str:
        """The library that computes the network, and the precision: "torch 2.9.0 bf16"."""
        return f"{self._engine.runtime} {self._engine.precision}"

    def peak_images_per_s(self) -> float:
        """Measure the upper limit of this detector's speed; see `model.peak`."""
        return peak_images_per_s(self.record, self.device, self._engine.precision)

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
        offsets, logits = self._engine(images)
        if not all(_are_finite(outputs) for outputs in (offsets, logits)):
            raise OutputError("the network's outputs are infinite or NaN")
        return postprocess(offsets, logits, self._default_boxes, sizes_px.to(self.device), self.record.thresholds)


def _are_finite(outputs: Tensor) -> bool:
    """Are all numbers finite? Infinite ones are the least or the greatest, and NaN is both."""
    least, greatest = outputs.aminmax()
    return bool(least.isfinite() & greatest.isfinite())


def detect(detector: Detector, examples: Examples, index: int) -> tuple[Detections, Truth]:
    """Return the detections in an example, by the same resize and detector as in a run, and its annotated objects."""
    example = examples[index]
    images = resize(example.image, detector.image_size_px)[None]
    (found,) = detector(images, torch.tensor([example.size_px], dtype=torch.float32))
    return found, example.truth
