"""The filters of the explorer: which images, and which of their boxes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import SettingError
from pipeline.explore.build import DEFAULT_SCORE

Sort = Literal["newest", "name", "best", "least_certain", "most_boxes", "fewest_boxes"]
ORDERS: dict[Sort, str] = {
    "newest": "run_date DESC, image_id DESC", "name": "uri, image_id", "best": "best DESC NULLS LAST, image_id",
    "least_certain": "best NULLS LAST, image_id", "most_boxes": "found DESC, image_id", "fewest_boxes": "found, image_id",
}  # fmt: skip
"""The SQL of each order."""
ALL = "true"
"""The SQL of no condition."""
COLUMN = "column."
"""The beginning of a filter's name that goes on with the name of a column from paths."""
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


@dataclass(frozen=True)
class Conditions:
    """A filter as SQL, with its values apart."""

    of_boxes: str
    """The condition on `boxes`."""
    box_values: list[Any]
    of_images: str
    """The condition on `images`."""
    image_values: list[Any]
    of_counts: str
    """The condition on the number of boxes, `found`."""
    limits_counts: bool
    """Is the number of boxes limited, beyond one where boxes are filtered by?"""


def conditions(chosen: Filter, are_latest: bool) -> Conditions:
    """Return the SQL of a filter.

    Args:
        chosen: the filter.
        are_latest: all rows of the table are the latest of their images.
    """
    boxes: list[tuple[str, list[Any]]] = [("score >= ?::FLOAT", [chosen.min_score])]
    if chosen.max_score < 1:
        boxes.append(("score < ?::FLOAT", [chosen.max_score]))
    if chosen.min_size > 0:
        boxes.append(("size >= ?::FLOAT", [chosen.min_size]))
    if chosen.max_size < 1:
        boxes.append(("size < ?::FLOAT", [chosen.max_size]))
    if chosen.label:
        boxes.append((f"label IN ({', '.join(['try_cast(? AS class)'] * len(chosen.label))})", list(chosen.label)))
    images: list[tuple[str, list[Any]]] = []
    if chosen.run:
        images.append(("run_id = ?", [chosen.run]))
    elif not are_latest:
        images.append(("is_latest", []))
    if chosen.model:
        images.append(("model_digest = ?", [chosen.model]))
    if chosen.status:
        images.append(("status = ?", [chosen.status]))
    if chosen.first_date:
        images.append(("run_date >= ?", [chosen.first_date]))
    if chosen.last_date:
        images.append(("run_date <= ?", [chosen.last_date]))
    if chosen.text:
        images.append(("contains(uri, ?)", [chosen.text]))
    for name, value in chosen.columns.items():
        quoted = '"' + name.replace('"', '""') + '"'
        images.append((f"coalesce({quoted}::VARCHAR, '') = ?", [value]))
    counts = []
    if chosen.is_about_boxes and chosen.max_boxes is None and not chosen.min_boxes:
        counts.append("found > 0")
    if chosen.min_boxes is not None:
        counts.append(f"found >= {chosen.min_boxes}")
    if chosen.max_boxes is not None:
        counts.append(f"found <= {chosen.max_boxes}")

    def joined(parts: list[tuple[str, list[Any]]]) -> tuple[str, list[Any]]:
        return " AND ".join(sql for sql, _ in parts) or ALL, [value for _, values in parts for value in values]

    limits_counts = chosen.min_boxes is not None or chosen.max_boxes is not None
    return Conditions(*joined(boxes), *joined(images), " AND ".join(counts) or ALL, limits_counts)
