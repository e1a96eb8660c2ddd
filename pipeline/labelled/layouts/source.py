"""A split of a data set, whatever its layout; and what readers of several layouts need."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import reason
from pipeline.images.decode import DecodeError, read_size
from pipeline.inputs.listing import HIDDEN, is_image
from pipeline.labelled.record import DataError, LabelledImage
from pipeline.storage import store

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")
OnBroken = Callable[[DataError], None]
"""The function that is called with the error of each annotation that can't be read, and is left out."""
UNDIVIDED = ""
"""The name that stands for all images of a data set without splits."""
NUM_READ_THREADS = 32
"""The threads that read small files. At a latency of 40 ms, they read 800 files per second."""
NUM_PROBED = 5
"""The number of images that are looked for in each folder where they may be. The first image may be missing."""
DRIVE = re.compile(r"^([A-Za-z]:)?/+")
HEADER_BYTES = 1 << 16
"""The first bytes of an image, in which its size is nearly always found."""


@dataclass(frozen=True)
class Source:
    """The images of a split, or of a data set without splits."""

    layout: str
    """The name of the layout, for messages."""
    read: Callable[[OnBroken], list[LabelledImage]]
    """Returns the images with their boxes as annotated."""
    instead: str = ""
    """The text that says, for people, that the images stand in for a split that the data set lacks."""


def visible_names(folder: str) -> set[str]:
    """Return the names in a folder, without what systems and tools hide there, as a run leaves it out."""
    return {name for name in store.names(folder) if not re.search(HIDDEN, f"/{name}/")}


def images_below(folder: str) -> list[str]:
    """Return the URIs of all visible images in a folder and its folders, sorted."""
    uris = (file.uri for page in store.walk(f"{folder}/") for file in page if is_image(file.uri))
    return sorted(uri for uri in uris if not re.search(HIDDEN, uri.removeprefix(folder)))


def plain_path(file_name: str) -> str:
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
    def of(cls, folders: Sequence[str], paths: Sequence[str]) -> "Place":
        """Find the first place that has one of the first few images. A path of another machine loses the first parts that differ here."""
        probed = paths[:NUM_PROBED]
        for num_dropped in range(max((path.count("/") + 1 for path in probed), default=1)):
            for place in (cls(folder, num_dropped) for folder in folders):
                if any(store.exists(place.uri(path)) for path in probed):
                    return place
        if paths:
            logger.warning("no image found: looked for %s in %s", paths[0], ", ".join(folders))
        return cls(folders[0])


def image_folders(folder: str, split: str) -> tuple[str, ...]:
    """Return the folders in which the images of a split may be."""
    of_split = (f"{folder}/{split}", f"{folder}/images/{split}") if split else ()
    return (*of_split, f"{folder}/images", folder)


def new_image(
    uri: str,
    size_px: tuple[int, int] | None,
    names: Sequence[str],
    boxes_xyxy: ArrayLike,
    is_crowd: Sequence[bool] | None = None,
) -> LabelledImage:
    """Return an image none of whose objects is difficult, and whose objects have the areas of their boxes."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    nothing = np.zeros(len(boxes), np.bool_)
    crowds = nothing if is_crowd is None else np.asarray(is_crowd, np.bool_)
    areas = abs(boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return LabelledImage(uri, size_px, boxes, tuple(names), nothing, crowds, areas)


def in_threads(function: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """Return a function's answers, in order, for a function that reads small files."""
    with ThreadPoolExecutor(NUM_READ_THREADS) as threads:
        return list(threads.map(function, items))


class UnsizedError(DataError):
    """An image is missing or no picture, so that boxes that are shares of its sides can't be known. The message names it.

    Args:
        uri: the image's.
        why: the text of the error.
    """

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(f"{uri}: its size can't be read, of which boxes are shares ({why})")
        self.uri = uri


def sizes_of(uris: Sequence[str]) -> list[tuple[int, int] | DataError]:
    """Return the width and height of each image, as a viewer shows it, or the error of one that can't be read."""
    return in_threads(_size_of, uris)


def _size_of(uri: str) -> tuple[int, int] | DataError:
    try:
        fs, path = store.filesystem(uri)
        try:
            return read_size(fs.cat_file(path, start=0, end=HEADER_BYTES))
        except DecodeError:  # Notes before the size are longer than that.
            return read_size(store.read(uri))
    except (FileNotFoundError, DecodeError) as error:
        return UnsizedError(uri, reason(error))
    except OSError as error:
        return DataError(f"{uri}: its size can't be read, of which boxes are shares ({reason(error)})")


def keep_sound(answers: Iterable[LabelledImage | DataError], on_broken: OnBroken) -> list[LabelledImage]:
    """Return the images, and report the errors."""
    images = []
    for answer in answers:
        if isinstance(answer, DataError):
            on_broken(answer)
        else:
            images.append(answer)
    return images
