"""Labelled images in Pascal VOC's layout: `Annotations`, `ImageSets/Main`, `JPEGImages`."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException, ElementTree
from numpy.typing import NDArray

from pipeline import storage
from pipeline.errors import reason
from pipeline.labelled import DataError, LabelledImage

NUM_READ_THREADS = 32
"""Annotations are many small files: at a latency of 40 ms 800 a second."""


def has_split(folder: str, split: str) -> bool:
    """Does a folder's `ImageSets/Main` list this split?"""
    return storage.exists(_listing(folder, split))


def read_voc(folder: str, split: str, on_broken: Callable[[DataError], None]) -> list[LabelledImage]:
    """The images that `ImageSets/Main/<split>.txt` lists, in its order, with their boxes as annotated.

    Args:
        folder: path or URL, absolute.
        split: train, val and so on.
        on_broken: is told of each annotation that is missing or is not what VOC describes; such are left out.

    Raises:
        DataError: the listing can't be read.
    """
    listing = _listing(folder, split)
    try:
        lines = storage.read(listing).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{listing}: can't be read ({reason(error)})") from error
    names = [line.split()[0] for line in lines if line.strip()]
    with ThreadPoolExecutor(NUM_READ_THREADS) as threads:
        answers = list(threads.map(partial(_read_annotation, folder), names))
    for answer in answers:
        if isinstance(answer, DataError):
            on_broken(answer)
    return [answer for answer in answers if isinstance(answer, LabelledImage)]


def _listing(folder: str, split: str) -> str:
    return f"{folder}/ImageSets/Main/{split}.txt"


def _read_annotation(folder: str, name: str) -> LabelledImage | DataError:
    url = f"{folder}/Annotations/{name}.xml"
    try:
        return _parse(ElementTree.fromstring(storage.read(url)), folder, name)
    except (OSError, ParseError, DefusedXmlException, ValueError) as error:
        return DataError(f"{url}: not a VOC annotation ({reason(error)})")


def _parse(tree: Element, folder: str, name: str) -> LabelledImage:
    objects = list(tree.iter("object"))
    names = tuple(node.findtext("name", "").strip() for node in objects)
    if not all(names):
        raise ValueError("an object has no name")
    corners = [[_number(node, side) for side in ("xmin", "ymin", "xmax", "ymax")] for node in objects]
    boxes = _zero_based(np.array(corners, dtype=np.float64).reshape(-1, 4))
    return LabelledImage(
        uri=f"{folder}/JPEGImages/{(tree.findtext('filename') or '').strip() or f'{name}.jpg'}",
        size_px=_size(tree),
        boxes_xyxy=boxes,
        class_names=names,
        is_difficult=np.array([node.findtext("difficult", "0").strip() == "1" for node in objects], dtype=np.bool_),
        is_crowd=np.zeros(len(objects), dtype=np.bool_),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
    )


def _zero_based(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """VOC counts pixels from 1 and includes the last: moving the first corner by one gives 0-based borders.

    A corner at 0 is of a tool that counts from 0, and stays. So does what has no area, so that it gets none.
    """
    low, high = corners[:, :2], corners[:, 2:]
    return np.concatenate((low - ((low != 0) & (low < high)), high), axis=1)


def _number(node: Element, side: str) -> float:
    """A coordinate; NaN where there is no finite number."""
    try:
        value = float(node.findtext(f"bndbox/{side}", ""))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _size(tree: Element) -> tuple[int, int] | None:
    """Width and height, or None: some tools write none, or zeros."""
    try:
        width_px, height_px = (int(float(tree.findtext(f"size/{side}", ""))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width_px, height_px) if width_px > 0 and height_px > 0 else None
