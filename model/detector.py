"""The detector: uint8 pixels in, detections out. The same code runs on CPU and GPU."""

import torch
from torch import Tensor

from model.default_boxes import default_boxes
from model.example import Examples, Truth
from model.package import ModelPackage
from model.postprocess import Detections, postprocess
from model.preprocess import normalise, resize


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device multiplies it in hardware, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class OutputError(ArithmeticError):
    """The network's outputs are infinite or NaN."""


class Detector:
    """A model on a device.

    Args:
        package: the model.
        device: the device that it runs on.
        dtype: the type of weights and activations; decoding, scores and suppression are float32 or better.
    """

    def __init__(self, package: ModelPackage, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.device = device
        self.dtype = dtype or fast_dtype(device)
        self.record = package.record
        self.image_size_px = package.record.architecture.image_size_px
        network = package.network().to(device=device, dtype=self.dtype).to(memory_format=torch.channels_last)
        self._network = network.requires_grad_(False)
        self._default_boxes = default_boxes(package.record.architecture).to(device)

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
        inputs = normalise(images.to(self.device, non_blocking=True), self.record.preprocessing, self.dtype)
        offsets, logits = self._network(inputs)
        if not (offsets.isfinite().all() & logits.isfinite().all()):
            raise OutputError("the network's outputs are infinite or NaN")
        found = postprocess(offsets, logits, self._default_boxes, sizes_px.to(self.device), self.record.thresholds)
        return [Detections(d.boxes_xyxy.cpu(), d.scores.cpu(), d.labels.cpu()) for d in found]


def detect(detector: Detector, examples: Examples, index: int) -> tuple[Detections, Truth]:
    """Return the detections in an example, by the same resize and detector as in a run, and its annotated objects."""
    example = examples[index]
    images = resize(example.image, detector.image_size_px)[None]
    (found,) = detector(images, torch.tensor([example.size_px], dtype=torch.float32))
    return found, example.truth
