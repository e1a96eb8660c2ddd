"""The labelled images in COCO's layout: `annotations/instances_<split>.json`, and the images of the split in a folder."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from pipeline.errors import reason
from pipeline.labelled.record import DataError, LabelledImage
from pipeline.storage import store
from pipeline.texts import decode_text

NUM_PROBED = 5
"""The number of images that are looked for in each folder where they may be. The first image may be missing."""
DRIVE = re.compile(r"^([A-Za-z]:)?/+")
NO_JSON = re.compile(rb"[\[:,\s]-?(NaN|Infinity)\b")
"""The numbers that JSON does not have, as Python's own writer spells them."""

Key = int | str | float
"""An ID: a number or, from some tools, the same number as text."""


class CocoImage(msgspec.Struct, gc=False):
    """An entry of `images`."""

    id: Key
    file_name: str
    width: Any = None
    height: Any = None


class CocoObject(msgspec.Struct, gc=False):
    """An entry of `annotations`. Outlines, by far the largest part of the file, are skipped unread."""

    image_id: Key
    category_id: Key
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None


class CocoCategory(msgspec.Struct):
    """An entry of `categories`. The IDs may have gaps."""

    id: Key
    name: str | int


class CocoFile(msgspec.Struct):
    """The parts of the file that are used."""

    images: list[CocoImage]
    annotations: list[CocoObject]
    categories: list[CocoCategory]


def has_split(folder: str, split: str) -> bool:
    """Does a folder's `annotations` hold this split?"""
    return store.exists(_instances(folder, split))


def read_coco(folder: str, split: str, on_broken: Callable[[DataError], None]) -> list[LabelledImage]:
    """Return the images of `instances_<split>.json`, in its order, with their boxes as annotated. Images without objects are included.

    The whole file is held in memory, together with the parts of it that are used.

    Args:
        folder: the folder's path or URL, absolute.
        split: the split's name: train2017, val2017 and so on.
        on_broken: called with an error for each object of an image or a category that the file does not list. Such objects are left out.

    Raises:
        DataError: the file can't be read, or is not what COCO describes.
    """
    url = _instances(folder, split)
    try:
        file = _decoded(store.read(url))
    except (OSError, UnicodeDecodeError, ValueError, msgspec.MsgspecError) as error:
        raise DataError(f"{url}: not COCO's instances ({reason(error)})") from error
    if repeated := [key for key, count in Counter(_key(image.id) for image in file.images).items() if count > 1]:
        raise DataError(f"{url}: {len(repeated)} ids stand for several images each, such as {repeated[0]}")
    names = _names(file.categories, url)
    objects: dict[str, list[CocoObject]] = defaultdict(list)
    image_ids = {_key(image.id) for image in file.images}
    for entry in file.annotations:
        image_id, category_id = _key(entry.image_id), _key(entry.category_id)
        if image_id in image_ids and category_id in names:
            objects[image_id].append(entry)
        else:
            on_broken(DataError(f"{url}: no image {image_id} or no category {category_id}"))
    paths = [_path(image.file_name) for image in file.images]
    place = Place.of(folder, split, paths)
    uris = [place.uri(path) for path in paths]
    if len(set(uris)) < len(set(paths)):
        raise DataError(
            f"{url}: several names of other folders are one file in {place.folder}; give names relative to it"
        )
    return [_labelled(uri, image, objects[_key(image.id)], names) for uri, image in zip(uris, file.images, strict=True)]


def _decoded(content: bytes) -> CocoFile:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or content.startswith(b"\xef\xbb\xbf"):
        content = decode_text(content).encode()
    try:
        return msgspec.json.decode(content, type=CocoFile)
    except msgspec.DecodeError:
        if not NO_JSON.search(content):
            raise
        return msgspec.convert(json.loads(content), CocoFile)  # A box without numbers is then reported with its image.


def _key(value: Key) -> str:
    """Return an ID in its one spelling: 1, 1.0 and "1" are the same."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _names(categories: Sequence[CocoCategory], url: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for category in categories:
        key, name = _key(category.id), str(category.name).strip()
        if not name:
            raise DataError(f"{url}: category {key} has no name")
        if names.setdefault(key, name) != name:
            raise DataError(f"{url}: category {key} is both {names[key]!r} and {name!r}; give each an id of its own")
    return names


def _instances(folder: str, split: str) -> str:
    return f"{folder}/annotations/instances_{split}.json"


def _path(file_name: str) -> str:
    """Return a file's name with slashes, without a drive and without "." and ".."."""
    parts = DRIVE.sub("", file_name.strip().removeprefix("file://").replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


@dataclass(frozen=True)
class Place:
    """The place of a split's images: a folder, and the number of first parts that their paths lose there."""

    folder: str
    num_dropped: int = 0

    def uri(self, path: str) -> str:
        """Return the URI of an image."""
        parts = path.split("/")
        return f"{self.folder}/{'/'.join(parts[min(self.num_dropped, len(parts) - 1) :])}"

    @classmethod
    def of(cls, folder: str, split: str, paths: Sequence[str]) -> "Place":
        """Find the first place that has one of the first few images. A path of another machine loses the first parts that differ here."""
        folders = (f"{folder}/{split}", f"{folder}/images/{split}", f"{folder}/images", folder)
        probed = paths[:NUM_PROBED]
        for num_dropped in range(max((path.count("/") + 1 for path in probed), default=1)):
            for place in (cls(folder_url, num_dropped) for folder_url in folders):
                if any(store.exists(place.uri(path)) for path in probed):
                    return place
        return cls(folders[0])


def _labelled(uri: str, image: CocoImage, objects: Sequence[CocoObject], names: Mapping[str, str]) -> LabelledImage:
    corner_and_sides = np.array([_numbers(entry.bbox) for entry in objects], dtype=np.float64).reshape(-1, 4)
    corner, sides = corner_and_sides[:, :2], corner_and_sides[:, 2:]
    boxes = np.concatenate((corner, corner + sides), axis=1)
    width_px, height_px = _side(image.width), _side(image.height)
    areas = [_area(entry, box) for entry, box in zip(objects, boxes, strict=True)]
    return LabelledImage(
        uri=uri,
        size_px=(width_px, height_px) if width_px > 0 and height_px > 0 else None,
        boxes_xyxy=boxes,
        class_names=tuple(names[_key(entry.category_id)] for entry in objects),
        is_difficult=np.zeros(len(objects), dtype=np.bool_),
        is_crowd=np.array([entry.iscrowd in (1, "1") for entry in objects], dtype=np.bool_),
        areas=np.array(areas, dtype=np.float64),
    )


def _side(value: Any) -> int:
    """Return a side in pixels, or 0 if there is none."""
    return int(value) if _is_number(value) and math.isfinite(value) else 0


def _area(entry: CocoObject, box_xyxy: Any) -> float:
    """Return the area of the outline, which COCO uses, or of the box if there is none."""
    if _is_number(entry.area) and math.isfinite(entry.area):
        return float(entry.area)
    return float(abs(box_xyxy[2:] - box_xyxy[:2]).prod())


def _numbers(bbox: Any) -> list[float]:
    """Return four coordinates, with NaN where there is no number."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return [math.nan] * 4
    return [float(value) if _is_number(value) else math.nan for value in bbox]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
