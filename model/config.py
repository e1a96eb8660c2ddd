"""What an SSD is made of: every number that changes its boxes, declared once."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
ArchitectureName = Literal["ssd300_vgg16", "ssd512_vgg16"]


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
    """What a kind of SSD has of its own: its layers after conv7, and where its default boxes stand."""

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
"""SSD300's scales are those for COCO, as torchvision's; SSD512's are those for Pascal VOC.

Source: Liu et al. 2016, sections 2.2 and 3; for SSD512 the authors' Caffe scripts.
"""


class Frozen(BaseModel):
    """A record whose fields are checked once, when it is made; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Architecture(Frozen):
    """The network's shape. Two networks with equal architectures take the same weights."""

    kind: ArchitectureName = "ssd300_vgg16"
    """Decides the input's size and the auxiliary convolutions; scales, ratios and steps unless they are given."""
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Multiplies the channels of each layer of trunk and auxiliary convolutions, rounded to eights."""
    batch_norm: bool = False
    """A BatchNorm2d after each convolution outside the heads: for training from scratch."""
    aspect_ratios: tuple[tuple[float, ...], ...] = Field(
        default_factory=lambda given: SHAPES[given["kind"]].aspect_ratios
    )
    """For each map, the ratios beside 1; each r stands for r and 1/r."""
    scales: tuple[float, ...] = Field(default_factory=lambda given: SHAPES[given["kind"]].scales)
    """For each map, its default boxes' size as a share of the image; one more for the last square."""
    steps_px: tuple[int, ...] = Field(default_factory=lambda given: SHAPES[given["kind"]].steps_px)
    """For each map, the distance between two cells' centres in pixels of the network's input."""
    clip_centres: Annotated[bool, Field(exclude_if=lambda clip: not clip)] = False
    """Default boxes' centres at most on the border. Left out of records where False: older digests stay as they are."""

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
        """Sides of the maps that the heads read, as `feature_map_names`."""
        return SHAPES[self.kind].feature_map_sizes

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
    """At its highest: reached after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps in which the learning rate rises from 0."""
    schedule: Literal["cosine", "multistep"] = "cosine"
    """After the warm-up: half a cosine down to 0, or a tenth from each milestone on."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """With the schedule multistep: steps from which the learning rate is a tenth of what it was."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD, Nesterov's."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """On all weights."""
    zoom_out_max: Annotated[float, Field(ge=1)] = 4.0
    """Half the time, shrink the image: both sides to a share drawn between 1 and one by this. Nearer to 1 where objects hardly
    differ in size, as under a microscope or a camera that stands still; 1 = never."""
    crop_min: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Crop to a share of each side drawn between this and 1, around objects; 1 = never."""
    match_iou: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """A default box learns the object that it overlaps by this or more. A little less gives small objects more boxes to learn them."""
    class_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Factors of what boxes of a class lose, by its name, such as Platelets=3; 1 unless given. More than 1 for what is rare."""
    vertical_flip: bool = False
    """Flip upside down too: for pictures without an up."""
    grad_accumulation: Annotated[int, Field(ge=1)] = 1
    """Forward passes that a worker's part of a batch is cut into, where memory does not hold it at once."""
    compile: bool = False
    """torch.compile the network; on a CPU it needs a C++ compiler."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of weights, order and augmentation."""

    @model_validator(mode="after")
    def _milestones_of_a_schedule(self) -> "TrainingSettings":
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError(
                f"milestones belong to the schedule multistep; it is {self.schedule}, with {self.milestones}"
            )
        return self
