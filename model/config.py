"""The settings of an SSD: every number that changes its boxes, declared once."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

JPEG_MARGIN = 2
"""The times by which a JPEG that is decoded at a fraction stays larger than the network's input. The resize still averages over pixels,
so that gray levels hardly change."""

Share = Annotated[float, Field(ge=0, le=1)]
ArchitectureName = Literal["ssd300_vgg16", "ssd512_vgg16"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
"""The type in which a network computes. "auto" is int8 for a quantized package, and else the fastest that the hardware has."""

Format = Literal["onnx", "openvino", "torch-export"]
"""The format of a file that other libraries compute."""
Part = Literal["detector", "network"]
"""The part of a model in such a file: from pixels to boxes, or to the raw outputs of the heads."""


@dataclass(frozen=True)
class Auxiliary:
    """A pair of auxiliary convolutions at width 1: 1×1 down to `narrow` channels, then the one that makes a map."""

    narrow: int
    channels: int
    kernel_size: int
    stride: int
    padding: int


@dataclass(frozen=True)
class Shape:
    """The properties of a kind of SSD: its layers after conv7, and the places of its default boxes."""

    image_size_px: int
    feature_map_sizes: tuple[int, ...]
    auxiliary: tuple[Auxiliary, ...]
    aspect_ratios: tuple[tuple[float, ...], ...]
    scales: tuple[float, ...]
    steps_px: tuple[int, ...]


HALVING = Auxiliary(128, 256, kernel_size=3, stride=2, padding=1)
WITHOUT_BORDER = Auxiliary(128, 256, kernel_size=3, stride=1, padding=0)
WIDE_HALVING = Auxiliary(256, 512, kernel_size=3, stride=2, padding=1)
LAST_OF_512 = Auxiliary(128, 256, kernel_size=4, stride=1, padding=1)

SHAPES: dict[ArchitectureName, Shape] = {
    "ssd300_vgg16": Shape(
        image_size_px=300,
        feature_map_sizes=(38, 19, 10, 5, 3, 1),
        auxiliary=(WIDE_HALVING, HALVING, WITHOUT_BORDER, WITHOUT_BORDER),
        aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
        steps_px=(8, 16, 32, 64, 100, 300),
    ),
    "ssd512_vgg16": Shape(
        image_size_px=512,
        feature_map_sizes=(64, 32, 16, 8, 4, 2, 1),
        auxiliary=(WIDE_HALVING, HALVING, HALVING, HALVING, LAST_OF_512),
        aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        scales=(0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05),
        steps_px=(8, 16, 32, 64, 128, 256, 512),
    ),
}
"""The shape of each kind of SSD. SSD300's scales are those for COCO, as in torchvision; SSD512's are those for Pascal VOC.

Source: Liu et al. 2016, sections 2.2 and 3; for SSD512 the authors' Caffe scripts.
"""


class Frozen(BaseModel):
    """A record whose fields are checked once, when it is made; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Architecture(Frozen):
    """The network's shape. Two networks with equal architectures take the same weights."""

    kind: ArchitectureName = "ssd300_vgg16"
    """The kind of the network: it decides the input's size and the auxiliary convolutions. It also decides scales,
    ratios and steps, unless they are given."""
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    """The factor by which the channels of each layer of trunk and auxiliary convolutions are multiplied, rounded to multiples of 8."""
    batch_norm: bool = False
    """A BatchNorm2d after each convolution outside the heads, for training from scratch."""
    aspect_ratios: tuple[tuple[float, ...], ...] = Field(
        default_factory=lambda given: SHAPES[given["kind"]].aspect_ratios
    )
    """The aspect ratios of each map's default boxes other than 1. Each r stands for r and 1/r."""
    scales: tuple[float, ...] = Field(default_factory=lambda given: SHAPES[given["kind"]].scales)
    """The size of each map's default boxes as a share of the image, and one more for the last map's second square."""
    steps_px: tuple[int, ...] = Field(default_factory=lambda given: SHAPES[given["kind"]].steps_px)
    """The distance between the centres of two cells of each map, in pixels of the network's input."""
    clip_centres: Annotated[bool, Field(exclude_if=lambda clip: not clip)] = False
    """Moves the centres of default boxes outside of the image onto its border. Records leave it out where it is
    False, so that older digests stay as they are."""

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
        """The side of the square input, in pixels."""
        return SHAPES[self.kind].image_size_px

    @property
    def auxiliary(self) -> dict[int, Auxiliary]:
        """The auxiliary convolutions by their number: from 8, for conv8_1 and conv8_2."""
        return dict(enumerate(SHAPES[self.kind].auxiliary, start=8))

    @property
    def feature_map_names(self) -> tuple[str, ...]:
        """The layers whose maps the heads read."""
        return ("conv4_3", "conv7", *(f"conv{number}_2" for number in self.auxiliary))

    @property
    def feature_map_sizes(self) -> tuple[int, ...]:
        """The sides of the maps that the heads read, in cells, in the order of `feature_map_names`."""
        return SHAPES[self.kind].feature_map_sizes

    @property
    def num_default_boxes_a_cell(self) -> tuple[int, ...]:
        """The number of default boxes at each cell of each map: two squares, and two boxes for each aspect ratio."""
        return tuple(2 + 2 * len(ratios) for ratios in self.aspect_ratios)


class Preprocessing(Frozen):
    """The way from pixels to the network's input, the same in training and in inference."""

    mean: tuple[float, float, float] = (0.48235, 0.45882, 0.40784)
    """The mean that is subtracted from RGB in [0, 1]: ImageNet's, with which the VGG16 trunk was trained."""
    std: tuple[float, float, float] = (1 / 255, 1 / 255, 1 / 255)
    """The divisor after the subtraction; 1/255 gives the 0-255 range that the original Caffe weights expect."""
    resize: Literal["bilinear_antialias_uint8"] = "bilinear_antialias_uint8"
    """The way to resize: both sides become the input's size, and the aspect ratio is not kept."""
    jpeg_dct_scaling: Annotated[bool, Field(exclude_if=lambda scaling: not scaling)] = False
    """Decodes large JPEGs at 1/4 or 1/8 of their size, by libjpeg's scaled DCT. Records leave it out where it is
    False, so that older digests stay as they are."""
    test_time_flip: Annotated[bool, Field(exclude_if=lambda flip: not flip)] = False
    """Detects in each image and in its mirror image, and suppresses what both find. Training does not."""

    def min_side_px(self, image_size_px: int, crop_min: float = 1.0) -> int | None:
        """Return the fewest pixels that each side of a JPEG keeps when it is decoded at a fraction, or None for no fraction.

        Args:
            image_size_px: the side of the network's input.
            crop_min: the smallest share of each side that a crop keeps before it is resized to the input.
        """
        return math.ceil(JPEG_MARGIN * image_size_px / crop_min) if self.jpeg_dct_scaling else None


class Thresholds(Frozen):
    """The limits by which candidates become detections, each with torchvision's meaning."""

    score_thresh: Share = 0.01
    """The score that a candidate must exceed."""
    topk_candidates: Annotated[int, Field(ge=1)] = 400
    """The number of best candidates of each class that enter non-maximum suppression."""
    nms_thresh: Share = 0.45
    """The IoU with a better box of its class above which a box is suppressed."""
    detections_per_img: Annotated[int, Field(ge=1)] = 200
    """The number of best detections of all classes together that are kept per image."""
    min_scores: Annotated[tuple[Share, ...], Field(exclude_if=lambda scores: not scores)] = ()
    """The least score of each class, in the order of the classes; none means `score_thresh` alone. Records leave it out
    where it is empty, so that older digests stay as they are."""


class TrainingSettings(Frozen):
    """The recipe of a training."""

    heading: ClassVar[str] = "Recipe"
    """The title of its flags in a command's help."""

    num_steps: Annotated[int, Field(ge=1)] = 1500
    """Number of optimizer steps."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Images per optimizer step, of all workers together."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.02
    """Highest learning rate, which is reached at the end of the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Number of steps in which the learning rate rises from 0 to learning_rate."""
    schedule: Literal["cosine", "multistep"] = "cosine"
    """Course of the learning rate after the warm-up: cosine falls along half a cosine to 0, and multistep drops to a
    tenth at each of milestones."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Steps at which the learning rate drops to a tenth, for the schedule multistep. May be given several times."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Use Nesterov's form of momentum. The paper and torchvision use the plain form."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay."""
    decay_biases: bool = True
    """Apply weight decay to biases and norms, too. The paper's authors spare biases."""
    max_gradient_norm: Annotated[float, Field(ge=0)] = 10.0
    """Largest length of the gradient; a longer one is shortened. 0 means no limit, as in the paper."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of a moving average of the weights, such as 0.999, which is measured and packaged instead of the
    last weights. 0 turns it off."""
    freeze_stages: Annotated[int, Field(ge=0, le=5)] = 0
    """Number of the trunk's stages, from the input on, that keep the weights that they start with."""
    zoom_out_max: Annotated[float, Field(ge=1)] = 4.0
    """Shrink half of the images: both sides are divided by a random factor between 1 and this; 1 turns this off. Use
    less where objects hardly differ in size, as under a microscope or a fixed camera. Unless given, the data decides; see follow_data."""
    crop_min: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Smallest share of each side that a crop keeps. Crops are drawn between this and 1, around objects; 1 turns them off.
    Unless given, the data decides; see follow_data."""
    match_iou: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """IoU with an object from which on a default box learns that object. A slightly lower value gives small objects
    more default boxes to learn them. Unless given, the data decides; see follow_data."""
    min_negatives: Annotated[int, Field(ge=0)] = 3
    """Least number of background boxes per image that count in the loss. So images without objects teach, too. 0 is
    the paper's rule: three per matched box, and none without."""
    class_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Factors of the loss by class name, such as Platelets=3; other classes have 1. Give rare classes more than 1.
    Unless given, the data decides; see follow_data."""
    vertical_flip: bool = False
    """Flip half of the images upside down, too. Use it for images without an up, such as those of a microscope."""
    grad_accumulation: Annotated[int, Field(ge=1)] = 1
    """Number of forward passes that a worker's part of a batch is split into. Use more if the part does not fit into memory."""
    compile: bool = False
    """Compile the network with torch.compile. This needs a compiler: g++ on a CPU, gcc on a GPU."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the weights, of the order of the images, and of augmentation."""

    @model_validator(mode="after")
    def _milestones_of_a_schedule(self) -> "TrainingSettings":
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError(
                f"milestones belong to the schedule multistep; it is {self.schedule}, with {self.milestones}"
            )
        return self
