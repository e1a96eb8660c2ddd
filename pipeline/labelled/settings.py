"""The settings of `data check`; flags are made from this class."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from model.config import ArchitectureName, Frozen


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
    architecture: ArchitectureName = "ssd300_vgg16"
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
