"""Labelled data at paths or URLs: which layout each folder has, and what a split of them holds."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline import coco, storage, voc
from pipeline.errors import reason
from pipeline.labelled import DataError, Flaw, LabelledImage, clean
from pipeline.urls import absolute

logger = logging.getLogger(__name__)

DEALT_WITH: dict[Flaw, str] = {
    "without_area": "without area left out",
    "outside": "outside of their picture left out",
    "clipped": "that reach over the border clipped",
}


@dataclass(frozen=True)
class Layout:
    """How a kind of data set is read."""

    name: str
    has_split: Callable[[str, str], bool]
    read: Callable[[str, str, Callable[[DataError], None]], list[LabelledImage]]


VOC = Layout("Pascal VOC", voc.has_split, voc.read_voc)
COCO = Layout("COCO", coco.has_split, coco.read_coco)


def raise_it(error: DataError) -> None:
    """The first broken annotation stops the reading."""
    raise error


def read_labelled(
    data: Sequence[str], split: str, on_broken: Callable[[DataError], None] = raise_it
) -> list[LabelledImage]:
    """The images of a split of all data sets, one after the other, with their boxes as annotated.

    Args:
        data: folders by path or URL, in Pascal VOC's or COCO's layout, or a VOCdevkit that holds several years. One that
            does not have the split is passed over, and said so, as long as another has it.
        split: a file of `ImageSets/Main`, or `annotations/instances_<split>.json`.
        on_broken: is told of each annotation that can't be read; unless given, it is raised.

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
    """As `read_labelled`, with only the boxes that can be learned from; what was left out is said.

    Raises:
        DataError: the data can't be used.
    """
    images, flaws = clean(read_labelled(data, split))
    num_objects = sum(len(image.class_names) for image in images)
    said = [f"{flaws[flaw]:,} boxes {what}" for flaw, what in DEALT_WITH.items() if flaws[flaw]]
    logger.info("%s", "; ".join([f"{split}: {len(images):,} images, {num_objects:,} objects", *said]))
    return images


def find_folders(url: str) -> list[tuple[str, Layout]]:
    """A data set's folder and its layout; several of a VOCdevkit.

    Raises:
        DataError: nothing is there, or it is in neither layout.
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
    raise DataError(
        f"data {url!r} is no data set that can be read; looked for ImageSets (Pascal VOC), "
        "annotations/instances_….json (COCO) and VOC…/ImageSets (a VOCdevkit)"
    )


def _names(folder: str) -> set[str]:
    try:
        return storage.names(folder)
    except OSError as error:
        raise DataError(f"data {folder!r} can't be read: {reason(error)}") from error
