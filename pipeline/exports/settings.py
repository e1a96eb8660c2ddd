"""The settings of `export`; its flags are made from these classes."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from model.config import Frozen
from pipeline.settings import Metavar, Name, Place, Url

WITHOUT_SCORES = ("yolo", "voc", "cvat")
"""The formats in which a box has no score. Most of a table's boxes are unlikely ones, which nobody could tell apart there."""
LIKELY = 0.5
ExportFormat = Literal["parquet", "csv", "jsonl", "coco", "yolo", "voc", "fiftyone", "label-studio", "cvat"]


class ExportSelectionSettings(Frozen):
    """The settings of which images and which boxes are taken."""

    heading: ClassVar[str] = "Selection"

    where: Annotated[str, Metavar("SQL")] | None = None
    """Take only images that meet this condition, on the columns of the view `images`: "num_detections > 5"."""
    run: Annotated[str, Metavar("RUN_ID")] | None = None
    """Take only images that this run processed. The beginning of its ID is enough."""
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Take only boxes with at least this score. Unless given, it is 0.5 in exports as yolo, voc and cvat, which have no scores."""
    class_name: tuple[Name, ...] = ()
    """Take only boxes of this class. May be given several times."""


class ExportSettings(ExportSelectionSettings):
    """The settings of `export`."""

    heading: ClassVar[str] = "Export"

    table: Url
    """Delta table of results, local or s3://."""
    output: Url
    """Folder to make."""
    format: ExportFormat = "parquet"
    """Format to write. parquet, csv and jsonl have one row per box. The others are data sets of the images of one model."""
    copy_images: bool = False
    """Copy the images into the folder, too. Most programs that read coco, yolo and voc need them there, and so does train."""
    coco_ids: Place | None = None
    """COCO annotations whose IDs of images and classes to use, for an evaluation against them. Needs format coco."""

    @model_validator(mode="after")
    def _of_its_format(self) -> "ExportSettings":
        if self.copy_images and self.is_flat:
            raise ValueError(f"copy_images: {self.format} has no images; use a data set's format, such as coco")
        if self.coco_ids and self.format != "coco":
            raise ValueError(f"coco_ids: {self.format} has no such IDs; use format coco")
        return self

    @model_validator(mode="before")
    @classmethod
    def _likely_boxes_where_scores_are_lost(cls, given: Any) -> Any:
        if given.get("format") in WITHOUT_SCORES and given.get("min_score") is None:
            return {**given, "min_score": LIKELY}
        return given

    @property
    def is_flat(self) -> bool:
        """Does the format have one row per box?"""
        return self.format in ("parquet", "csv", "jsonl")
