"""What an SSD is made of: every number that changes its boxes, declared once."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """A record whose fields are checked once, when it is made; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Architecture(Frozen):
    """The network's shape. Two networks with equal architectures take the same weights."""

    kind: Literal["ssd300_vgg16"] = "ssd300_vgg16"
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Multiplies the channels of each layer of trunk and auxiliary convolutions, rounded to eights."""
    batch_norm: bool = False
    """A BatchNorm2d after each convolution outside the heads: for training from scratch."""
    aspect_ratios: tuple[tuple[float, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    """For each map, the ratios beside 1; each r stands for r and 1/r."""
    scales: tuple[float, ...] = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
    """For each map, its default boxes' size as a share of the image; one more for the last square."""
    steps_px: tuple[int, ...] = (8, 16, 32, 64, 100, 300)
    """For each map, the distance between two cells' centres in pixels of the network's input."""

    @model_validator(mode="after")
    def _one_entry_a_map(self) -> "Architecture":
        num_maps = len(self.feature_map_sizes)
        wanted = {"aspect_ratios": num_maps, "scales": num_maps + 1, "steps_px": num_maps}
        for field, count in wanted.items():
            if len(getattr(self, field)) != count:
                raise ValueError(f"{field} has {len(getattr(self, field))} entries; give {count}")
        return self

    @property
    def image_size_px(self) -> int:
        """Side of the square input."""
        return 300

    @property
    def feature_map_sizes(self) -> tuple[int, ...]:
        """Sides of the maps that the heads read: conv4_3, conv7, conv8_2, conv9_2, conv10_2, conv11_2."""
        return (38, 19, 10, 5, 3, 1)

    @property
    def num_default_boxes_a_cell(self) -> tuple[int, ...]:
        """Default boxes at each cell of each map: two squares, and two for each aspect ratio."""
        return tuple(2 + 2 * len(ratios) for ratios in self.aspect_ratios)


class Preprocessing(Frozen):
    """How pixels become the network's input; in training and in inference alike."""

    mean: tuple[float, float, float] = (0.48235, 0.45882, 0.40784)
    """Subtracted from RGB in [0, 1]: ImageNet's means, as the VGG16 trunk was trained with."""
    std: tuple[float, float, float] = (1 / 255, 1 / 255, 1 / 255)
    """Divides what is left; 1/255 gives the 0-255 range that the original Caffe weights expect."""
    resize: Literal["bilinear_antialias_uint8"] = "bilinear_antialias_uint8"
    """Both sides to the input's size, the aspect ratio is not kept."""


class Thresholds(Frozen):
    """Which candidates become detections; torchvision's meaning of each."""

    score_thresh: Share = 0.01
    """Candidates must score above this."""
    topk_candidates: Annotated[int, Field(ge=1)] = 400
    """The best of each class that enter non-maximum suppression."""
    nms_thresh: Share = 0.45
    """A box is suppressed when its IoU with a better one of its class is above this."""
    detections_per_img: Annotated[int, Field(ge=1)] = 200
    """The best of all classes that are kept."""


class TrainingSettings(Frozen):
    """The recipe."""

    num_steps: Annotated[int, Field(ge=1)] = 1500
    """Optimizer steps."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Images a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.02
    """At its highest: reached after the warm-up, then falling by a half cosine to 0."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps in which the learning rate rises from 0."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD, Nesterov's."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """On all weights."""
    rescale: bool = True
    """Zoom out and crop, as the paper does; not for endless examples whose sizes vary by themselves."""
    vertical_flip: bool = False
    """Flip upside down too: for pictures without an up."""
    num_workers: Annotated[int, Field(ge=0)] = 2
    """Processes that read and augment; 0: the training's own process does. Another number draws other augmentations."""
    seed: int = 0
    """Of weights, order and augmentation."""
