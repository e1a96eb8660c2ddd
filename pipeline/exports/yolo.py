"""The format of YOLO: a text file per image with boxes as shares of its sides, and a `data.yaml` that names the classes."""

import yaml

from pipeline.exports.exported_images import ExportedImages
from pipeline.exports.folder import NewFolder
from pipeline.exports.names import stem_of
from pipeline.exports.selection import SelectedImage, Selection

IMAGES = "images"
DIGITS = 6


def write_yolo(selection: Selection, folder: NewFolder, exported: ExportedImages) -> int:
    """Write the data set, and return the number of boxes.

    A line is the class from 0, then the centre, width and height of the box. An image without boxes has an empty file.
    """
    num_boxes = 0
    for name, image in exported.named(selection.images()):
        folder.write(f"labels/{stem_of(name)}.txt", "".join(_lines(image)).encode())
        num_boxes += len(image.scores)
    folder.write("data.yaml", _data_yaml(selection.class_names()))
    return num_boxes


def _lines(image: SelectedImage) -> list[str]:
    width_px, height_px = image.size_px
    boxes = image.boxes_xyxy / (width_px, height_px, width_px, height_px)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return [
        f"{label_id - 1} {' '.join(f'{number:.{DIGITS}f}' for number in (*centre, *size))}\n"
        for label_id, centre, size in zip(image.label_ids.tolist(), centres.tolist(), sides.tolist(), strict=True)
    ]


def _data_yaml(names: dict[int, str]) -> bytes:
    """Return the file that names the classes. A class of which nothing was detected gets a name of its own, as there may be no gaps.

    Without `path`, Ultralytics takes the file's own folder.
    """
    classes = {
        label_id - 1: names.get(label_id, f"class {label_id}") for label_id in range(1, max(names, default=0) + 1)
    }
    content = {"train": IMAGES, "val": IMAGES, "names": classes}
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode()
