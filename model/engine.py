"""The engines that compute a network's raw outputs from pixels: torch on any device, OpenVINO on CPUs."""

from typing import Protocol

import torch
from torch import Tensor

from model.config import Precision
from model.fold import fold_batch_norm
from model.package import ModelPackage
from model.package_files import PackageError
from model.preprocess import normalise

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIN_IMAGES_OF_OPENVINO = 1000
"""The number of images from which OpenVINO computes a network of floats. It takes some seconds to start."""
MIN_CAPABILITY_OF_FP16 = 7
"""The major compute capability from which GPUs multiply float16 faster than float32. Source: CUDA C++ programming guide."""


class Engine(Protocol):
    """A network that is ready to compute."""

    runtime: str
    """The library that computes, and its version: "torch 2.9.0"."""
    precision: Precision
    """The type that it multiplies."""

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw outputs of both heads; see `model.ssd.SSD.forward`.

        Args:
            images: (B, 3, S, S) uint8 RGB, in channels-last memory.
        """


def open_engine(package: ModelPackage, device: torch.device, precision: Precision, num_images: int) -> Engine:
    """Prepare a package's network on a device.

    Args:
        package: the model. The network of a quantized one is int8, and computed by OpenVINO.
        device: the device to compute on.
        precision: see `Precision`.
        num_images: the number of images of the run, which decides whether OpenVINO is worth its start.

    Raises:
        PackageError: the package does not have this precision, or this process can't compute with it.
    """
    package.record.check_precision(precision)
    if package.quantized:
        if device.type != "cpu":
            raise PackageError(
                "it is quantized to int8, which CPUs compute; use the package that it was made of, or machines without GPUs"
            )
        from model.openvino_network import quantized_engine

        return quantized_engine(package)
    precision = fast_precision(device) if precision == "auto" else precision
    if device.type == "cpu" and precision != "fp16" and num_images >= MIN_IMAGES_OF_OPENVINO:
        from model.openvino_network import float_engine, is_installed

        if is_installed():
            return float_engine(package, precision)
    return TorchEngine(package, device, precision)


def fast_precision(device: torch.device) -> Precision:
    """Return bf16 where the device multiplies it in hardware, else fp16 on GPUs that are fast with it, else fp32."""
    if fast_dtype(device) == torch.bfloat16:
        return "bf16"
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= MIN_CAPABILITY_OF_FP16:
        return "fp16"
    return "fp32"


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


class TorchEngine:
    """A network in torch.

    Args:
        package: the model, which is not changed.
        device: the device of weights and activations.
        precision: the type of weights and activations.
    """

    def __init__(self, package: ModelPackage, device: torch.device, precision: Precision) -> None:
        self.runtime, self.precision = f"torch {torch.__version__}", precision
        self._device, self._dtype = device, DTYPES[precision]
        if device.type == "cuda" and precision == "fp32":  # torch lets cuDNN round factors to TF32's ten bits
            torch.backends.cudnn.allow_tf32 = False
        self._preprocessing = package.record.preprocessing
        network = fold_batch_norm(package.network()).to(device=device, dtype=self._dtype)
        self._network = network.to(memory_format=torch.channels_last).requires_grad_(False)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Engine`. The outputs are on the device, in the engine's precision."""
        inputs = normalise(images.to(self._device, non_blocking=True), self._preprocessing, self._dtype)
        offsets, logits = self._network(inputs)
        return offsets, logits
