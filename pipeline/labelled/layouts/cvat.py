"""The labelled images in CVAT's own format, "CVAT for images 1.1": one `annotations.xml`, and the images."""

import math
from functools import partial
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from pipeline.errors import reason
from pipeline.labelled.layouts.source import (
    UNDIVIDED,
    OnBroken,
    Place,
    Source,
    image_folders,
    keep_sound,
    new_image,
    plain_path,
)
from pipeline.labelled.record import DataError, LabelledImage
from pipeline.storage import store

LAYOUT, FILE = "CVAT", "annotations.xml"
SIDES = ("xtl", "ytl", "xbr", "ybr")


def undivided(folder: str, names: set[str]) -> Source | None:
    """Return the images of a folder with CVAT's file."""
    return Source(LAYOUT, partial(_read, folder)) if FILE in names else None


def _read(folder: str, on_broken: OnBroken) -> list[LabelledImage]:
    url = f"{folder}/{FILE}"
    try:
        root = ElementTree.fromstring(store.read(url))
    except (OSError, ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DataError(f"{url}: not CVAT's annotations ({reason(error)})") from error
    if root.find("track") is not None:
        raise DataError(f"{url}: it is CVAT for video; export it as CVAT for images, or as COCO")
    nodes = list(root.iter("image"))
    place = Place.of(image_folders(folder, UNDIVIDED), [plain_path(node.get("name", "")) for node in nodes])
    return keep_sound((_labelled(node, place, url) for node in nodes), on_broken)


def _labelled(node: Element, place: Place, url: str) -> LabelledImage | DataError:
    name = node.get("name", "")
    objects = [child for child in node if child.tag in ("box", "polygon", "mask", "ellipse")]
    try:
        size_px = (int(node.get("width", "")), int(node.get("height", "")))
        boxes = [_box(child) for child in objects]
    except ValueError as error:
        return DataError(f"{url}: image {name!r}: {reason(error)}")
    return new_image(place.uri(plain_path(name)), size_px, [child.get("label", "").strip() for child in objects], boxes)


def _box(node: Element) -> list[float]:
    """Return the box around an object; raises ValueError for what is no number."""
    if node.tag == "box":
        return [_number(node, side) for side in SIDES]
    if node.tag == "mask":
        left, top, width, height = (_number(node, side) for side in ("left", "top", "width", "height"))
        return [left, top, left + width, top + height]
    if node.tag == "ellipse":
        x, y, rx, ry = (_number(node, side) for side in ("cx", "cy", "rx", "ry"))
        return [x - rx, y - ry, x + rx, y + ry]
    points = [tuple(map(float, point.split(","))) for point in node.get("points", "").split(";")]
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return [min(xs), min(ys), max(xs), max(ys)]


def _number(node: Element, name: str) -> float:
    value = float(node.get(name, ""))
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}")
    return value
