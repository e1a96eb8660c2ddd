"""The settings of `label next`; its flags are made from this class."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from model.config import Frozen
from pipeline.settings import Metavar, Url

TaskFormat = Literal["label-studio", "cvat", "coco", "voc", "yolo"]


class LabelNextSettings(Frozen):
    """The settings of `label next`."""

    heading: ClassVar[str] = "Label next"

    table: Url
    """Delta table of results, local or s3://."""
    output: Url
    """Folder to make. It gets the images, their boxes, and chosen.csv, which says why each was chosen."""
    budget: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Number of images to choose."""
    format: TaskFormat = "label-studio"
    """Format of the boxes. A person corrects them."""
    min_score: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Score from which a box counts as found, and is written. Boxes with scores near it are uncertain."""
    against: Annotated[str, Metavar("DIGEST")] | None = None
    """Digest of another model that the table has results of. Images on which the two models disagree are preferred.
    The beginning of the digest is enough."""
    where: Annotated[str, Metavar("SQL")] | None = None
    """Choose among images that meet this condition, on the columns of the view `images`."""
    earlier: tuple[Url, ...] = ()
    """Folder that `label next` made before. Its images are not chosen again. May be given several times."""
