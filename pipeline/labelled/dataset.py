"""The labelled data at paths or URLs: which layout each folder has, and which images a split holds."""

import logging
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pipeline.errors import reason
from pipeline.labelled import coco, voc
from pipeline.labelled.record import DataError, Flaw, LabelledImage, clean
from pipeline.storage import store
from pipeline.urls import absolute

logger = logging.getLogger(__name__)

NUM_NAMED = 5
"""The most names of a folder that a message holds."""

DEALT_WITH: dict[Flaw, str] = {
    "without_area": "without area left out",
    "outside": "outside of their picture left out",
    "swapped": "with swapped corners mended",
    "clipped": "that reach over the border clipped",
}


@dataclass(frozen=True)
class Layout:
    """A kind of data set, and the functions that read it."""

    name: str
    has_split: Callable[[str, str], bool]
    read: Callable[[str, str, Callable[[DataError], None]], list[LabelledImage]]


VOC = Layout("Pascal VOC", voc.has_split, voc.read_voc)
COCO = Layout("COCO", coco.has_split, coco.read_coco)


def raise_it(error: DataError) -> None:
    """Raise the error, so that the first broken annotation stops the reading."""
    raise error


def read_labelled(
    data: Sequence[str], split: str, on_broken: Callable[[DataError], None] = raise_it
) -> list[LabelledImage]:
    """Return the images of a split of all data sets, one data set after the other, with their boxes as annotated.

    Args:
        data: folders by path or URL, in Pascal VOC's or COCO's layout, or a VOCdevkit that holds several years. A folder without the split
            is skipped, with a line in the log, as long as another folder has the split.
        split: a file of `ImageSets/Main`, or `annotations/instances_<split>.json`.
        on_broken: called with the error of each annotation that can't be read. By default, the error is raised.

    Raises:
        DataError: a folder is in neither layout, or none has the split.
    """
    folders = [found for url in data for found in find_folders(url)]
    having = [(folder, layout) for folder, layout in folders if layout.has_split(folder, split)]
    if not having:
        where = ", ".join(f"{folder} ({layout.name})" for folder, layout in folders)
        raise DataError(
            f"no data has the split {split!r}: looked for ImageSets/Main/{split}.txt or "
            f"annotations/instances_{split}.json in {where}"
        )
    for folder, layout in folders:
        if (folder, layout) not in having:
            logger.info("%s has no split %r: not part of it", folder, split)
    return [image for folder, layout in having for image in layout.read(folder, split, on_broken)]


def read_clean(data: Sequence[str], split: str) -> list[LabelledImage]:
    """Return a split's images with only the boxes that can be learned from, and log what was left out; see `read_labelled`.

    Raises:
        DataError: the data can't be used.
    """
    images, flaws = clean(read_labelled(data, split))
    num_objects = sum(len(image.class_names) for image in images)
    said = [f"{flaws[flaw]:,} boxes {what}" for flaw, what in DEALT_WITH.items() if flaws[flaw]]
    logger.info("%s", "; ".join([f"{split}: {len(images):,} images, {num_objects:,} objects", *said]))
    return images


def find_folders(url: str) -> list[tuple[str, Layout]]:
    """Return a data set's folder and its layout. A VOCdevkit has several folders.

    Raises:
        DataError: nothing is there, or the folder is in neither layout.
    """
    folder = absolute(url).rstrip("/")
    names = _names(folder)
    if "ImageSets" in names:
        return [(folder, VOC)]
    if "annotations" in names and any(name.startswith("instances_") for name in _names(f"{folder}/annotations")):
        return [(folder, COCO)]
    years = [f"{folder}/{name}" for name in sorted(names) if name.startswith("VOC")]
    if years := [year for year in years if "ImageSets" in _names(year)]:
        return [(year, VOC) for year in years]
    within = {name for split in SPLIT_FOLDERS & names for name in _names(f"{folder}/{split}")}
    raise DataError(
        f"data {url!r} is no data set that can be read: {describe_folder(names | within)}; looked for ImageSets (Pascal VOC), "
        "annotations/instances_….json (COCO) and VOC…/ImageSets (a VOCdevkit). docs/data.md shows each as a tree"
    )


SPLIT_FOLDERS = {"train", "valid", "val", "test"}
"""The folders in which other layouts have a split's files. Their content shows which layout it is."""
OTHERS: tuple[tuple[str, str, str], ...] = (
    (
        r"_annotations\.coco\.json$",
        "an export of Roboflow",
        "move each split's file to annotations/instances_<split>.json",
    ),
    (r"instances_.*\.json$", "COCO's files beside the images", "move them into a folder annotations"),
    (r"data\.ya?ml$|labels$|.*\.names$", "YOLO's layout", "export it as Pascal VOC or COCO"),
    (r"annotations\.xml$", "CVAT's own format", "export it as Pascal VOC or COCO"),
    (r"result\.json$", "an export of Label Studio", "move it to annotations/instances_<split>.json"),
    (
        r".*\.xml$",
        "VOC's annotations without its folders",
        "put them into Annotations, and list them in ImageSets/Main/<split>.txt",
    ),
    (r".*\.json$", "JSON, such as LabelMe's", "export it as COCO, to annotations/instances_<split>.json"),
    (r".*\.csv$", "a table", "export it as Pascal VOC or COCO"),
    (
        r"Annotations$|JPEGImages$",
        "VOC's folders without lists of splits",
        "list the images' names in ImageSets/Main/<split>.txt",
    ),
    (r".*\.(jpe?g|png|webp|bmp|tiff?)$", "images alone", "name the folder that has their annotations, too"),
    (r".*\.(zip|tar|gz|tgz)$", "an archive", "unpack it"),
)
"""The other kinds of data sets: a file's or folder's name as a regular expression, the kind, and how to make the data readable."""


def describe_folder(names: Collection[str]) -> str:
    """Return what a folder without a known layout holds, and what to do."""
    if not names:
        return "the folder is empty"
    for pattern, what, advice in OTHERS:
        if found := sorted(name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)):
            return f"it looks like {what} ({found[0]}); {advice}"
    return f"found {', '.join(sorted(names)[:NUM_NAMED])}{' and more' if len(names) > NUM_NAMED else ''}"


def _names(folder: str) -> set[str]:
    try:
        return store.names(folder)
    except OSError as error:
        raise DataError(f"data {folder!r} can't be read: {reason(error)}") from error
