"""The settings of `evaluate`; flags, specs and the schema are made from this class."""

from typing import Annotated

from pydantic import Field

from pipeline.settings import DetectionSettings


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
