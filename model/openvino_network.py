"""The network in OpenVINO, an optional library that computes faster than torch on CPUs, and in int8."""

import os
import tempfile
from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.config import Precision, Preprocessing
from model.engine import fast_precision
from model.fold import fold_batch_norm
from model.package import ModelPackage
from model.package_files import QUANTIZED_FILES, PackageError
from model.ssd import SHORTEST, L2Norm

HINTS = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's names of types that it computes in."""


def is_installed() -> bool:
    """Is the extra `openvino` installed?"""
    return find_spec("openvino") is not None


def _openvino() -> Any:
    """Import OpenVINO.

    Raises:
        PackageError: it is not installed.
    """
    if not is_installed():
        raise PackageError("it is quantized to int8, and OpenVINO is not installed: pip install 'ssd-batch[openvino]'")
    import openvino

    return openvino


class OpenVinoEngine:
    """A network in OpenVINO, on this process's cores; see `model.engine.Engine`.

    Args:
        model: an `openvino.Model` that takes (B, S, S, 3) uint8.
        hint: the precision of what is not quantized.
        precision: the precision of the network.
    """

    def __init__(self, model: Any, hint: Precision, precision: Precision) -> None:
        openvino = _openvino()
        self.runtime, self.precision = f"openvino {openvino.__version__.partition('-')[0]}", precision
        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": HINTS[hint],
        }
        self._request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Engine`. The outputs are valid until the next call."""
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        outputs = self._request.infer({0: pixels}, share_inputs=True, share_outputs=True)
        return torch.from_numpy(outputs[0]), torch.from_numpy(outputs[1])


def float_engine(package: ModelPackage, precision: Precision) -> OpenVinoEngine:
    """Return an engine of a package's weights."""
    return OpenVinoEngine(build(package), precision, precision)


def quantized_engine(package: ModelPackage) -> OpenVinoEngine:
    """Return an engine of a package's quantized network.

    Raises:
        PackageError: OpenVINO is not installed, or can't read the network.
    """
    return OpenVinoEngine(read_quantized(package), fast_precision(torch.device("cpu")), "int8")


def read_quantized(package: ModelPackage) -> Any:
    """Return a package's quantized network as an `openvino.Model`; raises as `quantized_engine`."""
    graph, weights = (package.quantized[name] for name in QUANTIZED_FILES)
    openvino = _openvino()
    try:
        return openvino.Core().read_model(graph, openvino.Tensor(_bytes(weights)))
    except RuntimeError as error:
        raise PackageError(f"OpenVINO can't read its quantized network: {error}") from error


def _bytes(content: bytes) -> Any:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).numpy()


def build(package: ModelPackage) -> Any:
    """Return a package's network as an `openvino.Model` from (B, S, S, 3) uint8 to both heads' raw outputs."""
    openvino = _openvino()
    ops = openvino.opset13
    network = fold_batch_norm(package.network())
    size_px = package.record.architecture.image_size_px
    pixels = ops.parameter([-1, size_px, size_px, 3], openvino.Type.u8, name="pixels")
    add = partial(_add, ops)
    offsets, logits = [], []
    heads = zip(network.localization, network.classification, strict=True)
    feature_maps = network.feature_maps(_normalised(ops, pixels, package.record.preprocessing), add)
    for feature_map, (localize, classify) in zip(feature_maps, heads, strict=True):
        offsets.append(_one_row_a_box(ops, add(localize, feature_map), 4))
        logits.append(_one_row_a_box(ops, add(classify, feature_map), network.num_classes))
    return openvino.Model([ops.concat(offsets, 1), ops.concat(logits, 1)], [pixels], package.record.name)


def _normalised(ops: Any, pixels: Any, preprocessing: Preprocessing) -> Any:
    """Add the way from pixels to the network's input; see `model.preprocess.normalise`."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    planes = ops.transpose(ops.convert(pixels, "f32"), ops.constant([0, 3, 1, 2]))
    centred = ops.subtract(planes, ops.constant((mean * 255).numpy()))
    return ops.multiply(centred, ops.constant((1 / (255 * std)).numpy()))


def _add(ops: Any, layer: nn.Module, x: Any) -> Any:
    """Add a layer, or several, after a node."""
    if isinstance(layer, nn.Sequential):
        for each in layer:
            x = _add(ops, each, x)
        return x
    if isinstance(layer, nn.Conv2d):
        assert layer.bias is not None
        weight, bias = layer.weight.detach(), layer.bias.detach().view(1, -1, 1, 1)
        padding = layer.padding
        convolved = ops.convolution(x, ops.constant(weight.numpy()), layer.stride, padding, padding, layer.dilation)
        return ops.add(convolved, ops.constant(bias.numpy()))
    if isinstance(layer, nn.MaxPool2d):
        kernel, strides, pads = ([size, size] for size in (layer.kernel_size, layer.stride, layer.padding))
        rounding = "ceil" if layer.ceil_mode else "floor"
        return ops.max_pool(x, strides, [1, 1], pads, pads, kernel, rounding).output(0)
    if isinstance(layer, L2Norm):
        unit = ops.normalize_l2(x, ops.constant([1]), SHORTEST**2, "max")
        return ops.multiply(unit, ops.constant(layer.scale.detach().view(1, -1, 1, 1).numpy()))
    if isinstance(layer, nn.ReLU):
        return ops.relu(x)
    assert isinstance(layer, nn.Identity), layer
    return x


def _one_row_a_box(ops: Any, head: Any, num_values: int) -> Any:
    """Add what `model.ssd` does with a head's output."""
    rows = ops.transpose(head, ops.constant([0, 2, 3, 1]))
    return ops.reshape(rows, ops.constant([0, -1, num_values]), special_zero=True)


def quantize(package: ModelPackage, images: Iterable[Tensor]) -> ModelPackage:
    """Return the package with a network of int8 next to its weights.

    Args:
        package: a model that is not quantized.
        images: each (3, S, S) uint8 RGB, such as those that the model will see. A few hundred are enough.

    Raises:
        PackageError: OpenVINO is not installed.
    """
    openvino = _openvino()
    os.environ.setdefault("NNCF_CI", "1")  # else NNCF reports to its authors that it is used
    import nncf

    pixels = [image.permute(1, 2, 0)[None].contiguous().numpy() for image in images]
    model = nncf.quantize(
        build(package), nncf.Dataset(pixels), subset_size=len(pixels), preset=nncf.QuantizationPreset.MIXED
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in QUANTIZED_FILES]
        openvino.save_model(model, paths[0], compress_to_fp16=False)
        return package.with_quantized({path.name: path.read_bytes() for path in paths})
