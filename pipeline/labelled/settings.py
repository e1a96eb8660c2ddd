"""The settings of `data check`; flags are made from this class."""

from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from model.config import ArchitectureName, Frozen
from pipeline.settings import Name, Place, Url


class DataCheckSettings(Frozen):
    """The settings of `data check`: the labelled images to check before a training."""

    heading: ClassVar[str] = "Labelled images"

    data: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Labelled images: a folder or URL in the layout of Pascal VOC, COCO, YOLO, LabelMe, CVAT or Open Images, or a file
    such as data.yaml. May be given several times."""
    split: Annotated[tuple[Name, ...], Field(min_length=1)] = ("train", "val")
    """Split to check; the first one given is the one to learn from. May be given several times."""
    model: Place | None = None
    """Model package whose classes and default boxes the data must fit."""
    class_names: Place | None = None
    """File with the allowed class names, one per line. If neither this nor model is set: the classes of the first split."""
    architecture: ArchitectureName = "ssd300_vgg16"
    """Network whose default boxes the objects must fit: ssd300_vgg16 or ssd512_vgg16."""
    output: Place | None = None
    """HTML page to write, by path or URL: one file with pictures of the findings."""

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
