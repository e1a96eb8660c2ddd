"""Settings of jobs whose own modules take seconds to import."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from model.config import Architecture, Frozen, Kind
from pipeline.aliases import check_alias
from pipeline.settings import DetectionSettings
from pipeline.training_settings import ClusterTraining


class TrainSettings(ClusterTraining):
    """Every knob of a training."""

    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Labelled images: a folder or URL in Pascal VOC's or COCO's layout, or a VOCdevkit; may be given several times."""
    output: Annotated[str, Field(min_length=1)]
    """Folder or URL that the model package is written to."""
    name: Annotated[str, Field(min_length=1)]
    """The model's name, and the run's: the same command goes on at the last checkpoint of a run that was stopped."""
    storage: str | None = None
    """Folder or URL for checkpoints, which all nodes must reach; <output>/_runs unless given."""
    train_split: str = "train"
    """Images to learn from: a file of ImageSets/Main, or annotations/instances_<split>.json."""
    val_split: str = "val"
    """Images to measure on at the end, as train_split."""
    architecture: Kind = "ssd300_vgg16"
    """The network: ssd300_vgg16, or ssd512_vgg16 for smaller objects at about three times the work."""
    width: Annotated[float, Field(gt=0, le=4)] = 0.25
    """Multiplies the channels of all layers; 1 is VGG16."""
    scales: tuple[float, ...] = ()
    """Default boxes' sizes, map by map, as shares of the image, and one more; the architecture's own unless given."""
    init: str | None = None
    """Package to start from: a trunk, or a detector whose heads are kept where they fit. Its width, batch norm and
    preprocessing are the training's; without batch norm, take a learning rate about 0.001."""

    @model_validator(mode="after")
    def _scales_of_the_architecture(self) -> "TrainSettings":
        Architecture(kind=self.architecture, **self.default_boxes)
        return self

    @property
    def default_boxes(self) -> dict[str, Any]:
        """What of an `Architecture` is given here rather than by its kind."""
        return {"scales": self.scales} if self.scales else {}


class EvaluateSettings(DetectionSettings):
    """What is measured, on what."""

    model: Annotated[str, Field(min_length=1)]
    """Model package to measure."""
    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Labelled images: a folder or URL in Pascal VOC's or COCO's layout, or a VOCdevkit; may be given several times."""
    split: Annotated[str, Field(min_length=1)] = "test"
    """Images to measure on: a file of ImageSets/Main, or annotations/instances_<split>.json."""
    page: str | None = None
    """Page to write, with curves and the worst mistakes as pictures: one HTML file, by path or URL."""


class DataCheckSettings(Frozen):
    """What is looked through before a training."""

    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Labelled images: a folder or URL in Pascal VOC's or COCO's layout, or a VOCdevkit; may be given several times."""
    split: Annotated[tuple[str, ...], Field(min_length=1)] = ("train", "val")
    """Splits: the first is the one to learn from; may be given several times."""
    model: str | None = None
    """Package whose classes and default boxes the data must fit."""
    class_names: str | None = None
    """File with the classes that there may be, one a line; unless this or a model is given, they are those of the first split."""
    architecture: Kind = "ssd300_vgg16"
    """Whose default boxes must fit: ssd300_vgg16 or ssd512_vgg16."""
    output: str | None = None
    """Page to write, with pictures of what was found: one HTML file, by path or URL."""

    @model_validator(mode="after")
    def _one_source_of_classes(self) -> "DataCheckSettings":
        if self.model and (self.class_names or "architecture" in self.model_fields_set):
            raise ValueError("model has classes and an architecture; give it without class_names and architecture")
        return self

    @field_validator("split")
    @classmethod
    def _each_split_once(cls, split: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(split)) < len(split):
            raise ValueError("a split is given twice; give each once")
        return split


class ImportSettings(Frozen):
    """Whose weights become a package."""

    weights: Annotated[str, Field(min_length=1)]
    """A .pth file, by path or URL, or one of torchvision's: SSD300_VGG16_Weights.COCO_V1, VGG16_Weights.IMAGENET1K_V1,
    VGG16_Weights.IMAGENET1K_FEATURES."""
    output: Annotated[str, Field(min_length=1)]
    """Folder or URL that the model package is written to."""
    name: Annotated[str, Field(min_length=1)]
    """The model's name."""
    class_names: str | None = None
    """File with a detector's class names, one a line, without the background; needed unless they are COCO's or VOC's."""
    preprocessing: Literal["imagenet", "caffe"] | None = None
    """How VGG16's weights want their pixels, where the file does not tell."""


class PublishSettings(Frozen):
    """What is published where."""

    model: Annotated[str, Field(min_length=1)]
    """Model package to publish: a folder or URL; one that is published already, by its digest or alias, only gets the alias."""
    to: Annotated[str, Field(min_length=1)]
    """Folder or URL of the published models: each gets a folder there, named by its digest."""
    alias: Annotated[str, AfterValidator(check_alias)] = "latest"
    """Name that stands for it from now on: infer takes --model TO/ALIAS, or TO/ and the beginning of a digest."""
