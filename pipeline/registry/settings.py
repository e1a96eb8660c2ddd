"""The settings of `model import` and `model publish`; flags are made from these classes."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from model.config import Frozen
from pipeline.registry.aliases import check_alias
from pipeline.settings import Metavar, Name, Place, Url


class ImportSettings(Frozen):
    """The settings of `model import`: whose weights become a package."""

    heading: ClassVar[str] = "Weights and package"

    weights: Annotated[str, Field(min_length=1), Metavar("FILE_OR_NAME")]
    """Weights to import: a .pth file, by path or URL, or torchvision's SSD300_VGG16_Weights.COCO_V1,
    VGG16_Weights.IMAGENET1K_V1 or VGG16_Weights.IMAGENET1K_FEATURES."""
    output: Url
    """Folder or URL to write the model package to."""
    name: Name
    """Name of the model."""
    class_names: Place | None = None
    """File with the class names of a detector, one per line, without the background. Needed unless they are those of COCO or VOC."""
    preprocessing: Literal["imagenet", "caffe"] | None = None
    """Pixel normalisation that the weights of a VGG16 expect: imagenet or caffe. Needed if the file does not show it."""
    jpeg_dct_scaling: bool = False
    """Decode large JPEGs at 1/4 or 1/8 of their size, wherever at least twice the input's pixels per side remain. It is
    part of the model's digest."""


class PublishSettings(Frozen):
    """The settings of `model publish`: which package is published, and where."""

    heading: ClassVar[str] = "Package and place"

    model: Url
    """Model package to publish: a folder or URL. A package that is published already, given by its digest or alias, only gets the alias."""
    to: Url
    """Folder or URL of the published models. Each model is stored in a folder there, named by its digest."""
    alias: Annotated[str, AfterValidator(check_alias), Metavar("NAME")] = "latest"
    """Alias that stands for the model from now on. Use it in infer as --model TO/ALIAS; TO/ and the beginning of a digest works, too."""
