"""The labelled images in COCO's format: a JSON file per split, such as `annotations/instances_train.json`, and the images in a folder."""

import codecs
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np

from pipeline.errors import reason
from pipeline.labelled.layouts.source import (
    NUM_PROBED,
    UNDIVIDED,
    OnBroken,
    Place,
    Source,
    image_folders,
    plain_path,
    visible_names,
)
from pipeline.labelled.record import DataError, LabelledImage
from pipeline.storage import store
from pipeline.texts import decode_text
from pipeline.urls import absolute

LAYOUT, ANNOTATIONS = "COCO", "annotations"
INSTANCES = re.compile(r"instances_(.+)\.json")
SPLIT = re.compile(r"(?:^|[-_.])(train|validation|valid|val|test)\d*(?=$|[-_.])", re.IGNORECASE)
"""The split in the name of a file that is not named as COCO's own."""
NO_JSON = re.compile(rb"[\[:,\s]-?(NaN|Infinity)\b")
"""The numbers that JSON does not have, as Python's own writer spells them."""
MAX_FILES = 10
"""The most JSON files of a folder that are all looked into, for COCO's parts."""

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


class CocoParts(msgspec.Struct):
    """The parts of a COCO file, unread."""

    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: msgspec.Raw


class CocoFile(msgspec.Struct):
    """The parts of the file that are used."""

    images: list[CocoImage]
    annotations: list[CocoObject]
    categories: list[CocoCategory]


def splits(folder: str, names: set[str]) -> dict[str, Source]:
    """Return the splits that have files of their own: `instances_train.json`, or any COCO file with a split's name in its own."""
    for place, files in _files(folder, names):
        named = {found[1]: name for name in files if (found := INSTANCES.fullmatch(name))}
        if not named:
            stems = {name: SPLIT.findall(name.rpartition(".")[0]) for name in files}
            for name in (name for name, found in stems.items() if found and _is_coco(f"{place}/{name}")):
                split = stems[name][-1].lower()
                if (other := named.setdefault(split, name)) != name:
                    raise DataError(
                        f"{place}: {other} and {name} are both of the split {split}; leave one of them there"
                    )
        if named:
            return {split: _source(folder, split, f"{place}/{name}") for split, name in named.items()}
    return {}


def undivided(folder: str, names: set[str]) -> Source | None:
    """Return the images of a folder with one COCO file, such as Roboflow's or Label Studio's.

    Raises:
        DataError: several files are COCO's. What one of them leaves unlabelled may be labelled in another.
    """
    for place, files in _files(folder, names):
        # One JSON file per image is LabelMe's way. Then the first tells.
        found = [name for name in files[: 1 if len(files) > MAX_FILES else None] if _is_coco(f"{place}/{name}")]
        if len(found) > 1:
            raise DataError(
                f"{place} has {len(found)} COCO files ({', '.join(found)}); name the one to read: --data {place}/{found[0]}"
            )
        if found:
            return _source(folder, UNDIVIDED, f"{place}/{found[0]}")
    return None


def _files(folder: str, names: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the folders that may have COCO files, and the names of their JSON files."""
    if ANNOTATIONS in names:
        yield f"{folder}/{ANNOTATIONS}", _json(visible_names(f"{folder}/{ANNOTATIONS}"))
    yield folder, _json(names)


def _json(names: set[str]) -> list[str]:
    return sorted(name for name in names if name.lower().endswith(".json"))


def _source(folder: str, split: str, url: str) -> Source:
    """Return the source of a file. A file in `annotations` that was named itself has its images next to that folder."""
    return Source(LAYOUT, partial(read_coco, url, image_folders(folder.removesuffix(f"/{ANNOTATIONS}"), split)))


def _is_coco(url: str) -> bool:
    try:
        msgspec.json.decode(store.read(url).removeprefix(codecs.BOM_UTF8), type=CocoParts)
    except (OSError, msgspec.MsgspecError):
        return False
    return True


def read_coco(url: str, folders: Sequence[str], on_broken: OnBroken) -> list[LabelledImage]:
    """Return the images of a COCO file, in its order, with their boxes as annotated. Images without objects are included.

    The whole file is held in memory, together with the parts of it that are used.

    Args:
        url: the file's path or URL, absolute.
        folders: the folders in which its images may be.
        on_broken: called with an error for each object of an image or a category that the file does not list. Such objects are left out.

    Raises:
        DataError: the file can't be read, or is not what COCO describes.
    """
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
    uris = _uris([image.file_name.strip() for image in file.images], folders, url)
    return [_labelled(uri, image, objects[_key(image.id)], names) for uri, image in zip(uris, file.images, strict=True)]


def _uris(file_names: Sequence[str], folders: Sequence[str], url: str) -> list[str]:
    """Return the place of each image: where the name itself says, if there is one, and else below one of the folders."""
    whole = [absolute(name) for name in file_names if name.startswith("/") or "://" in name]
    if len(whole) == len(file_names) and any(map(store.exists, whole[:NUM_PROBED])):
        return whole
    paths = list(map(plain_path, file_names))
    place = Place.of(folders, paths)
    uris = [place.uri(path) for path in paths]
    if len(set(uris)) < len(set(paths)):
        raise DataError(
            f"{url}: several names of other folders are one file in {place.folder}; give names relative to it"
        )
    return uris


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
