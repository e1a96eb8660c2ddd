"""The filters of the explorer: which images, and which of their boxes."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import SettingError
from pipeline.explore.build import COLUMN, DEFAULT_SCORE

Sort = Literal["newest", "name", "best", "least_certain", "most_boxes", "fewest_boxes"]
Share = Annotated[float, Field(ge=0, le=1)]


class Filter(BaseModel):
    """The choice of images and of their boxes. The values come from the page's URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: tuple[str, ...] = ()
    """The classes of boxes; all, unless given."""
    min_score: Share = DEFAULT_SCORE
    max_score: Share = 1.0
    min_size: Share = 0.0
    """The size of boxes: the square root of their share of the image."""
    max_size: Share = 1.0
    min_boxes: int | None = None
    """The number of such boxes in an image."""
    max_boxes: int | None = None
    first_date: date | None = None
    last_date: date | None = None
    run: str | None = None
    """The ID of a run. Without it, the latest rows of all images are shown."""
    model: str | None = None
    """The digest of a model."""
    status: Literal["ok", "failed"] | None = None
    text: str | None = None
    """A part of the URI."""
    columns: Mapping[str, str] = {}
    """Values of columns from paths, by name."""
    sort: Sort = "newest"

    @property
    def is_default(self) -> bool:
        """Are boxes filtered by the default score alone, for which their number per image is stored?"""
        return not self.is_about_boxes and self.min_score == DEFAULT_SCORE

    @property
    def is_about_boxes(self) -> bool:
        """Does an image need a box with the properties that are filtered by?"""
        return bool(self.label) or self.max_score < 1 or self.min_size > 0 or self.max_size < 1


def parse_filter(parameters: Mapping[str, list[str]], path_columns: list[str]) -> Filter:
    """Return the filter of a URL's parameters.

    Args:
        parameters: the values of each parameter.
        path_columns: the table's columns from paths.

    Raises:
        SettingError: a parameter is unknown, or has a value that can't be used.
    """
    values: dict[str, Any] = {}
    columns: dict[str, str] = {}
    for name, given in parameters.items():
        if name.startswith(COLUMN):
            column = name.removeprefix(COLUMN)
            if column not in path_columns:
                raise SettingError(f"{name}: the table has no column {column!r} from paths")
            columns[column] = given[-1]
        else:
            values[name] = tuple(given) if name == "label" else given[-1]
    try:
        return Filter(**values, columns=columns)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, not {first['input']!r}") from error
