"""The kinds of files that other projects keep weights in: how their tensors are named, and which of ours they are."""

from dataclasses import dataclass

TRUNK = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""The indices of VGG16's convolutions among its layers; all kinds of file without batch norm number them in this way."""
TRUNK_BN = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
"""The same with batch norm, which follows each convolution."""
OF_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
AUXILIARY = tuple((number, part) for number in (8, 9, 10, 11) for part in (1, 2))


@dataclass(frozen=True)
class Source:
    """A kind of file of weights."""

    title: str
    """The name of the kind, for messages and provenance."""
    keys: str
    """A regular expression that matches the beginning of at least one tensor's name."""
    names: dict[str, str]
    """The tensors' names in the file, each with our name."""
    ignored: str | None = None
    """The beginning of the names of tensors that are not used."""
    batch_norm: bool = False
    """True for a network with batch norm."""

    @property
    def is_trunk(self) -> bool:
        """Is this a trunk without heads, for training to start from?"""
        return not any(our_name.startswith("classification.") for our_name in self.names.values())


def _tensors(layers: dict[str, str]) -> dict[str, str]:
    """Return the names of the two tensors of each layer, theirs to ours, from the names of the layers."""
    return {
        f"{their_name}.{end}": f"{our_name}.{end}"
        for their_name, our_name in layers.items()
        for end in ("weight", "bias")
    }


TORCHVISION_SSD = Source(
    "torchvision's SSD300",
    r"backbone\.|head\.",
    _tensors(
        {f"backbone.features.{i}": f"trunk.{i}" for i in TRUNK if i < 23}
        | {f"backbone.extra.0.{i - 23}": f"trunk.{i}" for i in TRUNK if i > 23}
        | {"backbone.extra.0.7.1": "conv6.0", "backbone.extra.0.7.3": "conv7.0"}
        | {f"backbone.extra.{number - 7}.{2 * part - 2}": f"conv{number}_{part}.0" for number, part in AUXILIARY}
        | {f"head.regression_head.module_list.{i}": f"localization.{i}" for i in range(6)}
        | {f"head.classification_head.module_list.{i}": f"classification.{i}" for i in range(6)}
    )
    | {"backbone.scale_weight": "conv4_3_norm.scale"},
)
SSD_PYTORCH = Source(
    "ssd.pytorch's SSD300",
    r"vgg\.|extras\.|loc\.|conf\.",
    _tensors(
        {f"vgg.{i}": f"trunk.{i}" for i in TRUNK}
        | {"vgg.31": "conv6.0", "vgg.33": "conv7.0"}
        | {f"extras.{2 * (number - 8) + part - 1}": f"conv{number}_{part}.0" for number, part in AUXILIARY}
        | {f"loc.{i}": f"localization.{i}" for i in range(6)}
        | {f"conf.{i}": f"classification.{i}" for i in range(6)}
    )
    | {"L2Norm.weight": "conv4_3_norm.scale"},
    ignored="prior",
)
TORCHVISION_VGG = Source(
    "torchvision's VGG16",
    r"features\.",
    _tensors({f"features.{i}": f"trunk.{i}" for i in TRUNK}),
    ignored="classifier.",
)
TORCHVISION_VGG_BN = Source(
    "torchvision's VGG16 with batch norm",
    r"features\.\d+\.running_mean",
    _tensors({f"features.{i}": f"trunk.{i}" for i in TRUNK_BN})
    | {f"features.{i + 1}.{end}": f"trunk.{i + 1}.{end}" for i in TRUNK_BN for end in OF_BATCH_NORM},
    ignored="classifier.",
    batch_norm=True,
)
VGG_REDUCED = Source(
    "ssd.pytorch's vgg16_reducedfc",
    r"\d+\.(weight|bias)$",
    _tensors({f"{i}": f"trunk.{i}" for i in TRUNK} | {"31": "conv6.0", "33": "conv7.0"}),
)
SOURCES = (TORCHVISION_SSD, SSD_PYTORCH, TORCHVISION_VGG_BN, TORCHVISION_VGG, VGG_REDUCED)
