"""The settings of `model import` and `model publish`; flags are made from these classes."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from model.config import Format, Frozen, Part
from pipeline.registry.aliases import check_alias
from pipeline.settings import Metavar, Name, Place, Url


class ImportSettings(Frozen):
    """The settings of `model import`: whose weights become a package."""

    heading: ClassVar[str] = "Weights and package"

    weights: Annotated[str, Field(min_length=1), Metavar("FILE_OR_NAME")]
    """Weights to import: a .pth file, by path or URL, or torchvision's SSD300_VGG16_Weights.COCO_V1,
    VGG16_Weights.IMAGENET1K_V1, VGG16_Weights.IMAGENET1K_FEATURES or VGG16_BN_Weights.IMAGENET1K_V1."""
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


class ExportSettings(Frozen):
    """The settings of `model export`: which package is written, in which format, and the images to check the file on."""

    heading: ClassVar[str] = "Package and file"

    model: Url
    """Model package to export: a folder or URL, or a published model."""
    output: Url
    """File to write, by path or URL: .onnx, .xml (with a .bin beside it) or .pt2."""
    format: Format = "onnx"
    """Format to write: onnx, openvino or torch-export. onnx needs the extra export, openvino the extras export and openvino."""
    part: Part = "detector"
    """Part to write. The detector takes pixels and gives boxes, scores and labels. The network gives the raw outputs of
    its heads."""
    batch_size: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of images that the file takes at once."""
    input: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Images on which the file must compute what the package does, before it is kept: a folder, glob, URL or list, as
    of infer. May be given several times."""
    sample: Annotated[int, Field(ge=1, le=1000)] = 16
    """Number of these images to take: a fixed sample."""


class PublishSettings(Frozen):
    """The settings of `model publish`: which package is published, and where."""

    heading: ClassVar[str] = "Package and place"

    model: Url
    """Model package to publish: a folder or URL. A package that is published already, given by its digest or alias, only gets the alias."""
    to: Url
    """Folder or URL of the published models. Each model is stored in a folder there, named by its digest."""
    alias: Annotated[str, AfterValidator(check_alias), Metavar("NAME")] = "latest"
    """Alias that stands for the model from now on. Use it in infer as --model TO/ALIAS; TO/ and the beginning of a digest works, too."""


class PushSettings(Frozen):
    """The settings of `model push`: which package is pushed to the Hugging Face Hub, and where."""

    heading: ClassVar[str] = "Package and place"

    model: Url
    """Model package to push: a folder or URL, or a published model."""
    to: Annotated[str, Field(min_length=1), Metavar("HF_URL")]
    """Repository of the Hugging Face Hub, as hf://NAME/REPOSITORY. It is made if it does not exist. The token is that of
    HF_TOKEN, or of hf auth login."""
    private: bool = False
    """Make a new repository private."""
