"""Labelled images in COCO's layout: `annotations/instances_<split>.json`, and the images of the split in a folder."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from pipeline import storage
from pipeline.errors import reason
from pipeline.labelled import DataError, LabelledImage

NUM_PROBED = 5
"""Images that are looked for where they may be: the first may be missing."""


class CocoImage(msgspec.Struct, gc=False):
    """An entry of `images`."""

    id: int
    file_name: str
    width: float | None = None
    height: float | None = None


class CocoObject(msgspec.Struct, gc=False):
    """An entry of `annotations`; outlines, by far the most of the file, are passed over unread."""

    image_id: int
    category_id: int
    bbox: Any = None
    area: Any = None
    iscrowd: int = 0


class CocoCategory(msgspec.Struct):
    """An entry of `categories`; ids may have holes."""

    id: int
    name: str


class CocoFile(msgspec.Struct):
    """What of the file is used."""

    images: list[CocoImage]
    annotations: list[CocoObject]
    categories: list[CocoCategory]


def has_split(folder: str, split: str) -> bool:
    """Does a folder's `annotations` hold this split?"""
    return storage.exists(_instances(folder, split))


def read_coco(folder: str, split: str, on_broken: Callable[[DataError], None]) -> list[LabelledImage]:
    """The images of `instances_<split>.json`, in its order, with their boxes as annotated; those without objects too.

    The file is held whole, and what is used of it.

    Args:
        folder: path or URL, absolute.
        split: train2017, val2017 and so on.
        on_broken: is told of each object of an image or a category that the file does not list; such are left out.

    Raises:
        DataError: the file can't be read, or is not what COCO describes.
    """
    url = _instances(folder, split)
    try:
        file = msgspec.json.decode(storage.read(url), type=CocoFile)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{url}: not COCO's instances ({reason(error)})") from error
    if repeated := [key for key, count in Counter(image.id for image in file.images).items() if count > 1]:
        raise DataError(f"{url}: {len(repeated)} ids stand for several images each, such as {repeated[0]}")
    names = {category.id: category.name for category in file.categories}
    objects: dict[int, list[CocoObject]] = defaultdict(list)
    image_ids = {image.id for image in file.images}
    for entry in file.annotations:
        if entry.image_id in image_ids and entry.category_id in names:
            objects[entry.image_id].append(entry)
        else:
            on_broken(DataError(f"{url}: no image {entry.image_id} or no category {entry.category_id}"))
    images = _image_folder(folder, split, file.images)
    return [_labelled(f"{images}/{image.file_name}", image, objects[image.id], names) for image in file.images]


def _instances(folder: str, split: str) -> str:
    return f"{folder}/annotations/instances_{split}.json"


def _image_folder(folder: str, split: str, images: Sequence[CocoImage]) -> str:
    """Where the split's images are: the first place that has one of the first few."""
    places = (f"{folder}/{split}", f"{folder}/images/{split}", f"{folder}/images", folder)
    for place in places:
        if any(storage.exists(f"{place}/{image.file_name}") for image in images[:NUM_PROBED]):
            return place
    return places[0]


def _labelled(uri: str, image: CocoImage, objects: Sequence[CocoObject], names: dict[int, str]) -> LabelledImage:
    corner_and_sides = np.array([_numbers(entry.bbox) for entry in objects], dtype=np.float64).reshape(-1, 4)
    corner, sides = corner_and_sides[:, :2], corner_and_sides[:, 2:]
    boxes = np.concatenate((corner, corner + sides), axis=1)
    width_px, height_px = int(image.width or 0), int(image.height or 0)
    areas = [_area(entry, box) for entry, box in zip(objects, boxes, strict=True)]
    return LabelledImage(
        uri=uri,
        size_px=(width_px, height_px) if width_px > 0 and height_px > 0 else None,
        boxes_xyxy=boxes,
        class_names=tuple(names[entry.category_id] for entry in objects),
        is_difficult=np.zeros(len(objects), dtype=np.bool_),
        is_crowd=np.array([entry.iscrowd == 1 for entry in objects], dtype=np.bool_),
        areas=np.array(areas, dtype=np.float64),
    )


def _area(entry: CocoObject, box_xyxy: Any) -> float:
    """The outline's, as COCO goes by; the box's where there is none."""
    if _is_number(entry.area):
        return float(entry.area)
    return float((box_xyxy[2:] - box_xyxy[:2]).prod())


def _numbers(bbox: Any) -> list[float]:
    """Four coordinates; NaN where there is no number."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return [math.nan] * 4
    return [float(value) if _is_number(value) else math.nan for value in bbox]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
