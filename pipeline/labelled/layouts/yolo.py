"""The labelled images in YOLO's layout: a text file per image, with boxes as shares of its sides; and `data.yaml` of Ultralytics."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import yaml

from pipeline.errors import reason
from pipeline.inputs.listing import is_image
from pipeline.labelled.layouts.source import (
    OnBroken,
    Source,
    images_below,
    in_threads,
    keep_sound,
    new_image,
    sizes_of,
    visible_names,
)
from pipeline.labelled.layouts.yolo_paths import is_there, joined, places
from pipeline.labelled.record import DataError, LabelledImage
from pipeline.storage import store
from pipeline.texts import decode_text

logger = logging.getLogger(__name__)

LAYOUT = "YOLO"
DATA_YAML = re.compile(r".*\.ya?ml$", re.IGNORECASE)
CLASSES = re.compile(r"classes\.txt|.*\.names|_darknet\.labels", re.IGNORECASE)
"""A pattern of the names of files with a class per line."""
FOLDERS = {"train", "val", "valid", "test"}
SPLITS = ("train", "val", "test")
"""The keys of `data.yaml` that name a split's images."""
PLACES = (("images", "labels"), ("obj_train_data", "obj_train_data"), ("", "labels"), ("", ""))
"""The folders of images and of their labels."""
CVATS_SPLIT = re.compile(r"obj_(train|valid|test)_data")
"""A folder of a split as CVAT writes it."""
NUM_OF_BOX = (5, 6)
"""The numbers of a line with a box: its class, centre and sides, and perhaps a score."""
MIN_OF_OUTLINE = 7
"""The least numbers of a line with an outline: its class and three points."""

Names = Mapping[int, str]
"""The class names by their numbers, from 0."""


def splits(folder: str, names: set[str]) -> dict[str, Source]:
    """Return the splits that a `data.yaml` names, or the folders of splits in `images` and `labels`."""
    for name in sorted(filter(DATA_YAML.match, names)):
        content = _yaml(f"{folder}/{name}", is_ours=len(names) == 1 or name.startswith("data."))
        if "names" in content and any(content.get(split) for split in SPLITS):
            class_names = _class_names(content["names"], f"{folder}/{name}")
            if "kpt_shape" in content:
                logger.info("%s/%s: of keypoints, only the boxes are taken", folder, name)
            read = partial(_read_paths, folder, content.get("path"), class_names, "kpt_shape" in content)
            named = [split for split in SPLITS if content.get(split)]
            there = [
                split for split in named if split == "train" or is_there(folder, content.get("path"), content[split])
            ]
            for split in named if there else ():
                if split not in there:
                    logger.info("%s/%s: %s is left out: %s is not there", folder, name, split, content[split])
            return {split: Source(LAYOUT, partial(read, content[split])) for split in there or named}
    if not (classes := _classes(folder, names)):
        return {}
    if {"images", "labels"} <= names:
        of_splits = _of_splits(visible_names(f"{folder}/images") & visible_names(f"{folder}/labels"))
        return {
            split: Source(
                LAYOUT, partial(_read_folders, f"{folder}/images/{split}", f"{folder}/labels/{split}", classes)
            )
            for split in of_splits
        }
    of_cvat = {found[1]: f"{folder}/{name}" for name in sorted(names) if (found := CVATS_SPLIT.fullmatch(name))}
    if len(of_cvat) > 1:
        return {
            split: Source(LAYOUT, partial(_read_folders, place, place, classes)) for split, place in of_cvat.items()
        }
    found_splits = {split: _labelled_folder(f"{folder}/{split}", classes) for split in _of_splits(names)}
    return {split: source for split, source in found_splits.items() if source}


def _of_splits(names: set[str]) -> list[str]:
    return sorted(name for name in names if name.lower() in FOLDERS)


def _labelled_folder(folder: str, classes: str) -> Source | None:
    """Return the images of a split's folder, whose list of classes is elsewhere; None if it has no labels."""
    names = visible_names(folder)
    if "labels" in names:
        labels = visible_names(f"{folder}/labels")
        if sum(name.endswith(".xml") for name in labels) > sum(name.endswith(".txt") for name in labels):
            return None  # VOC's
        images = f"{folder}/images" if "images" in names else folder
        return Source(LAYOUT, partial(_read_folders, images, f"{folder}/labels", classes))
    stems = {name.rpartition(".")[0] for name in names if is_image(name)}
    of_voc = sum(name.endswith(".xml") and name[:-4] in stems for name in names)
    if sum(name.endswith(".txt") and name[:-4] in stems for name in names) > of_voc:
        return Source(LAYOUT, partial(_read_folders, folder, folder, classes))
    return None


def _classes(folder: str, names: set[str]) -> str:
    """Return the place of the list of classes, in a folder or in `labels` in it, or ""."""
    places = [(folder, names)]
    if "labels" in names:
        places.append((f"{folder}/labels", visible_names(f"{folder}/labels")))
    return next(
        (f"{place}/{name}" for place, listed in places for name in sorted(filter(CLASSES.fullmatch, listed))), ""
    )


def undivided(folder: str, names: set[str]) -> Source | None:
    """Return the images of a folder with labels and a list of classes, but without a `data.yaml`."""
    for of_images, of_labels in PLACES:
        if of_images not in names | {""} or of_labels not in names | {""}:
            continue
        images, labels = (f"{folder}/{name}" if name else folder for name in (of_images, of_labels))
        if classes := _classes(folder, names):
            return Source(LAYOUT, partial(_read_folders, images, labels, classes))
    return None


def _yaml(url: str, is_ours: bool) -> dict[str, Any]:
    """Return a file's content. A YAML file of something else may be anything."""
    try:
        content = yaml.safe_load(decode_text(store.read(url)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        if not is_ours:
            return {}
        raise DataError(f"{url}: can't be read ({reason(error)})") from error
    return content if isinstance(content, dict) else {}


def _class_names(given: Any, url: str) -> Names:
    names = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(names, dict) or not names:
        raise DataError(f"{url}: names is {given!r}; give a list, or numbers with names")
    if not all(isinstance(name, str | int | float) for name in names.values()):
        raise DataError(f"{url}: names has a list in it; give a name per class")
    try:
        return {int(number): str(name).strip() for number, name in names.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"{url}: names has {reason(error)}; give numbers with names") from error


def _read_paths(
    folder: str, root: Any, names: Names, have_keypoints: bool, paths: Any, on_broken: OnBroken
) -> list[LabelledImage]:
    """Read a split of `data.yaml`: one path or several, each of a folder or of a list of images."""
    uris: list[str] = []
    for url in places(folder, root, paths):
        uris += _listed(url) if url.endswith(".txt") else images_below(url)
    uris = list(dict.fromkeys(uris))
    return _read(uris, [_label_of(uri) for uri in uris], names, on_broken, have_keypoints)


def _listed(url: str) -> list[str]:
    """Return the images of a list, whose paths are relative to it."""
    folder = url.rpartition("/")[0]
    uris = []
    for line in _text(url).splitlines():
        if path := line.strip():
            uris.append(joined(folder, path))
    return uris


def _label_of(uri: str) -> str:
    """Return the place of an image's labels: `labels` instead of the last `images` in the path."""
    before, images, after = uri.rpartition("/images/")
    stem = (after if images else uri).rpartition(".")[0]
    return f"{before}/labels/{stem}.txt" if images else f"{stem}.txt"


def _read_folders(images: str, labels: str, classes: str, on_broken: OnBroken) -> list[LabelledImage]:
    lines = _text(classes).splitlines()
    names = dict(enumerate(line.strip() for line in lines if line.strip()))
    if images == labels:
        uris = sorted(f"{images}/{name}" for name in visible_names(images) if is_image(name))
    else:
        uris = images_below(images)
    of_images = [f"{labels}/{uri.removeprefix(f'{images}/').rpartition('.')[0]}.txt" for uri in uris]
    return _read(uris, of_images, names, on_broken)


def _read(
    uris: Sequence[str], labels: Sequence[str], names: Names, on_broken: OnBroken, have_keypoints: bool = False
) -> list[LabelledImage]:
    lines = list(in_threads(_lines, labels))
    if uris and all(of_image is None for of_image in lines):
        logger.warning(
            "none of %s images has a file of labels: looked for %s and the like", f"{len(uris):,}", labels[0]
        )
    answers = map(partial(_labelled, names, have_keypoints), uris, labels, lines, sizes_of(uris))
    return keep_sound((found for answer in answers for found in answer), on_broken)


def _lines(url: str) -> list[str] | DataError | None:
    """Return the lines of a file of labels, or why they can't be read. An image without such a file, which gives None, has no objects."""
    try:
        return _text(url).splitlines()
    except FileNotFoundError:
        return None
    except DataError as error:
        return error


def _text(url: str) -> str:
    """Return the text of a file.

    Raises:
        DataError: it is neither UTF-8 nor UTF-16.
    """
    try:
        return decode_text(store.read(url))
    except UnicodeDecodeError as error:
        raise DataError(f"{url}: can't be read ({reason(error)}); save it as UTF-8") from error


def _labelled(
    names: Names,
    have_keypoints: bool,
    uri: str,
    label: str,
    lines: Sequence[str] | DataError | None,
    size_px: tuple[int, int] | DataError,
) -> list[LabelledImage | DataError]:
    """Return the image with its sound lines, and the errors of the others."""
    if isinstance(size_px, DataError):
        return [size_px]
    if isinstance(lines, DataError):
        return [lines]
    found: list[LabelledImage | DataError] = []
    classes, boxes = [], []
    for number, line in enumerate(lines or (), 1):
        if not line.strip():
            continue
        try:
            label_id, box = _box(line, have_keypoints)
            classes.append(names[label_id])
            boxes.append(box)
        except (ValueError, KeyError) as error:
            why = f"class {error} of {len(names)}" if isinstance(error, KeyError) else reason(error)
            found.append(DataError(f"{label}: line {number}: {why}"))
    return [new_image(uri, size_px, classes, np.array(boxes).reshape(-1, 4) * (size_px * 2)), *found]


def _box(line: str, has_keypoints: bool) -> tuple[int, list[float]]:
    """Return the number of the class, and the corners as shares of the sides. Keypoints are behind the box.

    Raises:
        ValueError: the line is neither a box nor an outline.
    """
    first, *numbers = map(float, line.split())
    if not first.is_integer():
        raise ValueError(f"class {first} is no whole number")
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a coordinate is no number")
    if len(numbers) + 1 in NUM_OF_BOX or (has_keypoints and len(numbers) >= 4):
        x, y, width, height = numbers[:4]
        return int(first), [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if len(numbers) + 1 >= MIN_OF_OUTLINE and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        return int(first), [min(xs), min(ys), max(xs), max(ys)]
    raise ValueError(f"{len(numbers) + 1} numbers; a box has 5, an outline the class and points")
