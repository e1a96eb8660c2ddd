"""The settings of `model import` and `model publish`; flags are made from these classes."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from model.config import Frozen
from pipeline.registry.aliases import check_alias


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
