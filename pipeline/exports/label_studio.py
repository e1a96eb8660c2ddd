"""The tasks of Label Studio: one JSON file with predictions, and the labelling interface that they need."""

from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement

from pipeline.exports.exported_images import ExportedImages
from pipeline.exports.folder import NewFolder
from pipeline.exports.json_list import JsonList
from pipeline.exports.names import stem_of
from pipeline.exports.selection import SelectedImage, Selection
from pipeline.exports.xml import as_bytes, plain

TASKS, INTERFACE, IMAGES = "tasks.json", "interface.xml", "images"
LOCAL_FILES = "/data/local-files/?d="
"""The address at which Label Studio serves the files of a folder that it was given."""


def write_label_studio(selection: Selection, folder: NewFolder, exported: ExportedImages) -> int:
    """Write the tasks, and return the number of boxes.

    A box is (x, y, width, height) in percent of the sides. The image of a task is its copy in a folder that Label Studio serves, or its
    URI.
    """
    num_boxes = 0
    with folder.file(TASKS) as file, JsonList(file) as tasks:
        for name, image in exported.named(selection.images()):
            source = LOCAL_FILES + quote(f"{IMAGES}/{name}") if exported.are_copied else image.uri
            prediction = {
                "model_version": selection.model_name,
                "score": float(image.scores.mean()) if len(image.scores) else 0.0,
                "result": _boxes(name, image),
            }
            tasks.add({"data": {"image": source, "uri": image.uri}, "predictions": [prediction]})
            num_boxes += len(image.scores)
    folder.write(INTERFACE, _interface(list(selection.class_names().values())))
    return num_boxes


def _boxes(name: str, image: SelectedImage) -> list[dict[str, object]]:
    width_px, height_px = image.size_px
    percents = 100 * image.boxes_xyxy / (width_px, height_px, width_px, height_px)
    return [
        {
            "id": f"{stem_of(name)}-{number}", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
            "original_width": width_px, "original_height": height_px, "image_rotation": 0, "score": score,
            "value": {
                "x": xmin, "y": ymin, "width": xmax - xmin, "height": ymax - ymin, "rotation": 0, "rectanglelabels": [plain(label)],
            },
        }
        for number, (label, score, (xmin, ymin, xmax, ymax)) in enumerate(
            zip(image.labels, image.scores.tolist(), percents.tolist(), strict=True)
        )
    ]  # fmt: skip


def _interface(names: list[str]) -> bytes:
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image")
    labels = SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in names:
        SubElement(labels, "Label", value=plain(name))
    return as_bytes(view)
