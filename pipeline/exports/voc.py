"""The format of Pascal VOC: an XML file per image with boxes in whole pixels."""

import math
from xml.etree.ElementTree import Element, SubElement

from pipeline.exports.exported_images import ExportedImages
from pipeline.exports.folder import NewFolder
from pipeline.exports.names import stem_of
from pipeline.exports.selection import SIDES, SelectedImage, Selection
from pipeline.exports.xml import as_bytes, plain

IMAGES, SPLIT = "JPEGImages", "found"


def write_voc(selection: Selection, folder: NewFolder, exported: ExportedImages) -> int:
    """Write the data set, and return the number of boxes.

    Pixels count from 1, and the last one is in the box. `ImageSets/Main/found.txt` lists the images.
    """
    num_boxes = 0
    with folder.file(f"ImageSets/Main/{SPLIT}.txt") as listing:
        for name, image in exported.named(selection.images()):
            folder.write(f"Annotations/{stem_of(name)}.xml", _annotation(name, image))
            listing.write(f"{stem_of(name)}\n".encode())
            num_boxes += len(image.scores)
    return num_boxes


def _annotation(name: str, image: SelectedImage) -> bytes:
    root = Element("annotation")
    _add(root, folder=IMAGES, filename=name, path=image.uri)
    _add(SubElement(root, "source"), database="ssd-batch")
    width_px, height_px = image.size_px
    _add(SubElement(root, "size"), width=width_px, height=height_px, depth=3)
    _add(root, segmented=0)
    for label, box in zip(image.labels, image.boxes_xyxy.tolist(), strict=True):
        node = SubElement(root, "object")
        _add(node, name=label, pose="Unspecified", truncated=0, difficult=0)
        _add(SubElement(node, "bndbox"), **dict(zip(SIDES, _whole_pixels(box), strict=True)))
    return as_bytes(root, declaration=True)


def _whole_pixels(box_xyxy: list[float]) -> list[int]:
    """Return the first and the last pixels of a box, with every pixel that it touches."""
    xmin, ymin, xmax, ymax = box_xyxy
    (left, right), (top, bottom) = _pixels(xmin, xmax), _pixels(ymin, ymax)
    return [left, top, right, bottom]


def _pixels(start: float, stop: float) -> tuple[int, int]:
    """Return the first and the last pixel of a side, two at least: many readers treat one pixel as no area."""
    first, last = math.floor(start) + 1, math.ceil(stop)
    return (first, last) if first < last else (max(last - 1, 1), max(last, 2))


def _add(parent: Element, **texts: object) -> None:
    """Add an element with a text for each argument."""
    for tag, text in texts.items():
        SubElement(parent, tag).text = plain(text)
