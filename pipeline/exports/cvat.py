"""The format that CVAT calls "CVAT for images 1.1": one XML file with all boxes."""

from xml.etree.ElementTree import Element, SubElement

from pipeline.exports.exported_images import ExportedImages
from pipeline.exports.folder import NewFolder
from pipeline.exports.selection import SelectedImage, Selection
from pipeline.exports.xml import as_bytes, plain

ANNOTATIONS, IMAGES = "annotations.xml", "images"
CORNERS = ("xtl", "ytl", "xbr", "ybr")
DIGITS = 2


def write_cvat(selection: Selection, folder: NewFolder, exported: ExportedImages) -> int:
    """Write the file, and return the number of boxes. They are in pixels from the upper left corner."""
    num_boxes = 0
    with folder.file(ANNOTATIONS) as file:
        file.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        file.write(_meta(list(selection.class_names().values())))
        for number, (path, image) in enumerate(exported.with_paths(selection.images())):
            file.write(_image(number, path, image))
            num_boxes += len(image.scores)
        file.write(b"</annotations>\n")
    return num_boxes


def _meta(names: list[str]) -> bytes:
    """Return the description of a task with these classes, which readers other than CVAT look for."""
    meta = Element("meta")
    labels = SubElement(SubElement(meta, "task"), "labels")
    for name in names:
        SubElement(SubElement(labels, "label"), "name").text = plain(name)
    return as_bytes(meta) + b"\n"


def _image(number: int, name: str, image: SelectedImage) -> bytes:
    width_px, height_px = image.size_px
    node = Element("image", id=str(number), name=plain(name), width=str(width_px), height=str(height_px))
    for label, box in zip(image.labels, image.boxes_xyxy.tolist(), strict=True):
        corners = {corner: f"{side:.{DIGITS}f}" for corner, side in zip(CORNERS, box, strict=True)}
        SubElement(node, "box", {"label": plain(label), "source": "auto", "occluded": "0", "z_order": "0"} | corners)
    return as_bytes(node) + b"\n"
