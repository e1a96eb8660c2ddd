"""The labelled images as LabelMe writes them: a JSON file next to each image, with shapes."""

from functools import partial

import msgspec

from pipeline.errors import reason
from pipeline.labelled.layouts.source import OnBroken, Source, in_threads, keep_sound, new_image
from pipeline.labelled.record import DataError, LabelledImage
from pipeline.storage import store

LAYOUT = "LabelMe"
SHAPES = ("rectangle", "polygon", "circle", "mask")
"""The shapes that have an area. Lines and points are no objects."""


class Shape(msgspec.Struct):
    """An object."""

    label: str
    points: list[tuple[float, float]]
    shape_type: str | None = "polygon"


class LabelMeFile(msgspec.Struct, rename="camel"):
    """The parts of a file that are used. The image that is in it as text is skipped."""

    shapes: list[Shape]
    image_path: str
    image_width: int | None = None
    image_height: int | None = None


def undivided(folder: str, names: set[str]) -> Source | None:
    """Return the images of a folder whose first JSON file is LabelMe's."""
    files = sorted(name for name in names if name.lower().endswith(".json"))
    if not files or isinstance(_decoded(f"{folder}/{files[0]}"), DataError):
        return None
    return Source(LAYOUT, partial(_read, folder, files, names))


def _read(folder: str, files: list[str], names: set[str], on_broken: OnBroken) -> list[LabelledImage]:
    return keep_sound(in_threads(partial(_labelled, folder, names), files), on_broken)


def _decoded(url: str) -> LabelMeFile | DataError:
    try:
        return msgspec.json.decode(store.read(url), type=LabelMeFile)
    except (OSError, msgspec.MsgspecError) as error:
        return DataError(f"{url}: not LabelMe's ({reason(error)})")


def _labelled(folder: str, names: set[str], file: str) -> LabelledImage | DataError:
    found = _decoded(f"{folder}/{file}")
    if isinstance(found, DataError):
        return found
    shapes = [shape for shape in found.shapes if (shape.shape_type or "polygon") in SHAPES and len(shape.points) > 1]
    named = found.image_path.replace("\\", "/").rpartition("/")[2]
    stem = file.rpartition(".")[0]
    beside = sorted(name for name in names if name.rpartition(".")[0] == stem and name != file)
    image = named if named in names or not beside else beside[0]
    sides = (found.image_width or 0, found.image_height or 0)
    labels = [shape.label.strip() for shape in shapes]
    return new_image(f"{folder}/{image}", sides if min(sides) > 0 else None, labels, [_box(shape) for shape in shapes])


def _box(shape: Shape) -> list[float]:
    """Return the box around a shape. A circle is its centre, and a point of its border."""
    xs, ys = zip(*shape.points, strict=True)
    if shape.shape_type == "circle":
        radius = ((xs[1] - xs[0]) ** 2 + (ys[1] - ys[0]) ** 2) ** 0.5
        return [xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius]
    return [min(xs), min(ys), max(xs), max(ys)]
