"""The VGG16 trunk: five stages of 3×3 convolutions, each ended by a pooling that halves the map."""

from torch import nn

STAGES: tuple[tuple[int, ...], ...] = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)
"""The output channels of each convolution of each stage at width 1. Source: Simonyan 2014, table 1, column D."""


def scaled(channels: int, width: float) -> int:
    """Return the number of channels at a width multiplier: a multiple of eight, as vector units take, and at least eight."""
    return max(8, round(channels * width / 8) * 8)


def vgg16_trunk(width: float = 1.0, batch_norm: bool = False) -> nn.Sequential:
    """Return the convolutional part of VGG16, layer for layer as torchvision numbers it.

    It takes (B, 3, H, W); the downsampling rate after the five stages is 2, 4, 8, 16, 32. At width 1 its state
    dict is that of torchvision's `vgg16().features` (`vgg16_bn().features` with `batch_norm`).
    """
    layers: list[nn.Module] = []
    in_channels = 3
    for stage in STAGES:
        for channels in stage:
            out_channels = scaled(channels, width)
            layers.append(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(out_channels))
            layers.append(nn.ReLU(inplace=True))
            in_channels = out_channels
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=False))
    return nn.Sequential(*layers)


def pool_positions(trunk: nn.Sequential) -> list[int]:
    """Return the index of each stage's pooling layer: 4, 9, 16, 23, 30 without batch norm."""
    return [i for i, layer in enumerate(trunk) if isinstance(layer, nn.MaxPool2d)]
