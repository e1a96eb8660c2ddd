"""The format that FiftyOne calls FiftyOneImageDetectionDataset: one JSON file with all boxes, and the images or their names."""

import msgspec

from pipeline.exports.exported_images import ExportedImages
from pipeline.exports.folder import NewFolder
from pipeline.exports.json_list import JsonList
from pipeline.exports.names import stem_of
from pipeline.exports.selection import SelectedImage, Selection

IMAGES, LABELS, MANIFEST = "data", "labels.json", "data.json"


def write_fiftyone(selection: Selection, folder: NewFolder, exported: ExportedImages) -> int:
    """Write the data set, and return the number of boxes.

    A box is (x, y, width, height) in shares of the sides. `data.json` has the URI of each image.
    """
    names = sorted(selection.class_names().values())
    num_boxes = 0
    with folder.file(LABELS) as labels_file, folder.file(MANIFEST) as manifest_file:
        labels_file.write(b'{"classes":' + msgspec.json.encode(names) + b',"labels":')
        with JsonList(labels_file, "{}") as labels, JsonList(manifest_file, "{}") as manifest:
            for name, image in exported.named(selection.images()):
                labels.add_pair(stem_of(name), _boxes(image))
                manifest.add_pair(stem_of(name), image.uri)
                num_boxes += len(image.scores)
        labels_file.write(b"}")
    return num_boxes


def _boxes(image: SelectedImage) -> list[dict[str, object]]:
    width_px, height_px = image.size_px
    corners = image.boxes_xyxy / (width_px, height_px, width_px, height_px)
    boxes = [(xmin, ymin, xmax - xmin, ymax - ymin) for xmin, ymin, xmax, ymax in corners.tolist()]
    return [
        {"label": label, "bounding_box": box, "confidence": score}
        for label, box, score in zip(image.labels, boxes, image.scores.tolist(), strict=True)
    ]
