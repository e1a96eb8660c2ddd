"""The settings of `evaluate`; flags, specs and the schema are made from this class."""

from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.settings import DetectionSettings, Name, Place, Url


class EvaluateSettings(DetectionSettings):
    """The settings of `evaluate`: the model, and the labelled images that it is measured on."""

    heading: ClassVar[str] = "Model and data"

    model: Url
    """Model package to measure."""
    data: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Labelled images: a folder or URL in the layout of Pascal VOC or COCO, or a VOCdevkit. May be given several times."""
    split: Name = "test"
    """Split to measure on: the name of a list in ImageSets/Main (VOC), or of annotations/instances_<split>.json (COCO)."""
    page: Place | None = None
    """HTML page to write, by path or URL: one file with curves, and with pictures of the worst mistakes."""
