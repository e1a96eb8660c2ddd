"""The settings of `evaluate` and `model quantize`; flags, specs and the schema are made from these classes."""

from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.settings import DetectionSettings, Name, Place, Url


class EvaluateSettings(DetectionSettings):
    """The settings of `evaluate`: the model, and the labelled images that it is measured on."""

    heading: ClassVar[str] = "Model and data"

    model: Url
    """Model package to measure."""
    data: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Labelled images: a folder or URL in the layout of Pascal VOC, COCO, YOLO, LabelMe, CVAT or Open Images, or a file
    such as data.yaml. May be given several times."""
    split: Name = "test"
    """Split to measure on: the name of a list, a file or a folder of the data. Data without splits has train and val."""
    test_time_flip: bool = False
    """Detect in each image and in its mirror image. It takes twice as long, and finds a little more as a rule."""
    page: Place | None = None
    """HTML page to write, by path or URL: one file with curves, and with pictures of the worst mistakes."""
    label_errors: Place | None = None
    """CSV file to write, by path or URL: the labels that are worth a second look, because the model is sure (0.8 or more) of
    an object where none is annotated, or one of another class."""


class QuantizeSettings(DetectionSettings):
    """The settings of `model quantize`: the model, and the labelled images that it is calibrated with and measured on."""

    heading: ClassVar[str] = "Model and data"

    model: Url
    """Model package to quantize."""
    output: Url
    """Folder or URL to write the quantized model package to."""
    data: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Labelled images: a folder or URL in the layout of Pascal VOC, COCO, YOLO, LabelMe, CVAT or Open Images, or a file
    such as data.yaml. May be given several times."""
    calibration_split: Name = "train"
    """Split whose images show the ranges of the network's values."""
    num_calibration_images: Annotated[int, Field(ge=1)] = 300
    """Number of images to calibrate with: a fixed sample of the split."""
    split: Name = "val"
    """Split on which the package is measured in int8 and as it is."""
    max_map_loss: Annotated[float, Field(ge=0, le=1)] = 0.003
    """Exit with 3, and write nothing, if int8 loses more mAP than this."""
