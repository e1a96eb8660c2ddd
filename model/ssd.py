"""The SSD network: VGG16 trunk, auxiliary convolutions, and the two heads on six or seven feature maps."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from model.config import Architecture
from model.vgg16 import pool_positions, scaled, vgg16_trunk

Apply = Callable[[nn.Module, Any], Any]
CONV4_3_SCALE = 20.0
"""The initial value of conv4_3's learned scale. Source: Liu et al. 2016, section 3.1 (after ParseNet)."""

SHORTEST = 1e-6
"""The least length that channels are divided by. torch's own is 0 in float16."""


class L2Norm(nn.Module):
    """Scales each position's channels to length 1, and then each channel by a learned factor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), CONV4_3_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled map: (B, C, H, W) to the same shape."""
        return self.scale.view(1, -1, 1, 1) * F.normalize(x, dim=1, eps=SHORTEST)


def adapted_trunk(architecture: Architecture) -> nn.Sequential:
    """Return VGG16's trunk with SSD's two changes of pooling.

    pool3 rounds up, so that SSD300's 75 becomes 38 and not 37. pool5 no longer halves (3×3, stride 1), so that conv6
    works on 19×19, and SSD512's on 32×32. Neither has weights: VGG16's state dict still fits.

    Source: Liu et al. 2016, section 3.
    """
    trunk = vgg16_trunk(architecture.width, architecture.batch_norm)
    pool3, pool5 = pool_positions(trunk)[2], pool_positions(trunk)[4]
    trunk[pool3] = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
    trunk[pool5] = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
    return trunk


class SSD(nn.Module):
    """The SSD network with a VGG16 trunk: SSD300 or SSD512.

    Args:
        architecture: kind, width, batch norm, default boxes.
        num_classes: the number of classes with the background, which is class 0.

    Source: Liu et al. 2016, section 2.1 and figure 2.
    """

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        self.trunk = adapted_trunk(architecture)
        width, batch_norm = architecture.width, architecture.batch_norm

        def convolution(
            in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1
        ) -> nn.Sequential:
            inner, outer = scaled(in_channels, width), scaled(out_channels, width)
            norm = [nn.BatchNorm2d(outer)] if batch_norm else []
            layer = nn.Conv2d(inner, outer, kernel_size, stride, padding, dilation)
            return nn.Sequential(layer, *norm, nn.ReLU(inplace=True))

        # VGG16's fc6 and fc7 as convolutions. fc6 is sampled with holes, so that its reach stays that of the original 7×7.
        self.conv6 = convolution(512, 1024, 3, padding=6, dilation=6)
        self.conv7 = convolution(1024, 1024, 1)
        map_channels, channels = [512, 1024], 1024
        auxiliary: dict[str, nn.Sequential] = {}
        for number, pair in architecture.auxiliary.items():
            auxiliary[f"conv{number}_1"] = convolution(channels, pair.narrow, 1)
            channels = pair.channels
            auxiliary[f"conv{number}_2"] = convolution(
                pair.narrow, channels, pair.kernel_size, pair.stride, pair.padding
            )
            map_channels.append(channels)
        for name, layer in auxiliary.items():
            self.add_module(name, layer)
        self._auxiliary = tuple(auxiliary)
        self.conv4_3_norm = L2Norm(scaled(512, width))

        self.pool4 = pool_positions(self.trunk)[3]
        boxes_a_cell = architecture.num_default_boxes_a_cell
        shapes = list(zip((scaled(c, width) for c in map_channels), boxes_a_cell, strict=True))
        self.localization = nn.ModuleList(nn.Conv2d(c, 4 * k, kernel_size=3, padding=1) for c, k in shapes)
        self.classification = nn.ModuleList(nn.Conv2d(c, num_classes * k, kernel_size=3, padding=1) for c, k in shapes)
        self.num_classes = num_classes
        self._initialise()

    @property
    def auxiliary(self) -> dict[str, nn.Module]:
        """Return the auxiliary convolutions by name, in order: conv8_1, which narrows, conv8_2, which makes a map, and so on."""
        return {name: self.get_submodule(name) for name in self._auxiliary}

    def feature_maps(self, x: Any, apply: Apply = lambda layer, x: layer(x)) -> Iterator[Any]:
        """Yield the maps that the heads read. Their sides are 38, 19, 10, 5, 3, 1 for SSD300.

        Args:
            x: images (B, 3, S, S), normalised.
            apply: applies a layer. Another library builds its own network of these layers so (`model.openvino_network`).
        """
        x = apply(self.trunk[: self.pool4], x)
        yield apply(self.conv4_3_norm, x)
        for layer in (self.trunk[self.pool4 :], self.conv6, self.conv7):
            x = apply(layer, x)
        yield x
        layers = iter(self.auxiliary.values())
        for narrow, extract in zip(layers, layers, strict=True):
            x = apply(extract, apply(narrow, x))
            yield x

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw outputs of both heads.

        Args:
            images: (B, 3, S, S) float, normalised RGB; S is the architecture's `image_size_px`.

        Returns:
            offsets (B, A, 4), variance-scaled, and logits (B, A, num_classes), ordered like `default_boxes`. A is 8732
            for SSD300, 24564 for SSD512.
        """
        offsets, logits = [], []
        heads = zip(self.localization, self.classification, strict=True)
        for feature_map, (localize, classify) in zip(self.feature_maps(images), heads, strict=True):
            offsets.append(_one_row_a_box(localize(feature_map), 4))
            logits.append(_one_row_a_box(classify(feature_map), self.num_classes))
        return torch.cat(offsets, dim=1), torch.cat(logits, dim=1)

    def _initialise(self) -> None:
        """Initialise new layers by Xavier, the trunk by He, biases as zero. Source: Liu et al. 2016, section 3; He et al. 2015."""
        of_trunk = set(self.trunk)
        for module in self.modules():
            if not isinstance(module, nn.Conv2d):
                continue
            if module in of_trunk:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


class _Uninitialised(TorchFunctionMode):
    """Leave new tensors as they are."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_):
            return args[0]
        return func(*args, **(kwargs or {}))


def network_of_shapes(architecture: Architecture, num_classes: int) -> SSD:
    """Return a network whose tensors are on the device "meta": they have shapes, and no values.

    Nothing is initialised: for that, torch would import for two seconds what computes on that device.
    """
    with torch.device("meta"), _Uninitialised():
        return SSD(architecture, num_classes)


def _one_row_a_box(head: Tensor, num_values: int) -> Tensor:
    """Reshape a head's output from (B, K·V, H, W) to (B, H·W·K, V).

    The channels hold the V values of each of K boxes, box by box. Nothing is copied when memory is channels-last.
    """
    num_rows = head.shape[1:].numel() // num_values
    return head.permute(0, 2, 3, 1).reshape(head.shape[0], num_rows, num_values)
