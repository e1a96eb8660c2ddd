"""Write a selection of a table's detections in one of the formats."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import SettingError
from pipeline.exports import coco, cvat, fiftyone, label_studio, voc, yolo
from pipeline.exports.exported_images import ExportedImages
from pipeline.exports.flat import write_flat
from pipeline.exports.folder import NewFolder
from pipeline.exports.selection import Selection
from pipeline.exports.settings import ExportSettings
from pipeline.table.delta import ResultTable

Writer = Callable[[Selection, NewFolder, ExportedImages], int]
DATA_SETS: dict[str, tuple[Writer, str]] = {
    "coco": (coco.write_coco, "images"),
    "yolo": (yolo.write_yolo, yolo.IMAGES),
    "voc": (voc.write_voc, voc.IMAGES),
    "fiftyone": (fiftyone.write_fiftyone, fiftyone.IMAGES),
    "label-studio": (label_studio.write_label_studio, label_studio.IMAGES),
    "cvat": (cvat.write_cvat, cvat.IMAGES),
}
"""The function that writes a data set, and the folder of its images."""


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    output: str
    rows: int
    """The number of boxes."""
    images: int | None
    """The number of images of a data set; None for flat files."""
    not_copied: int
    """The number of images that should have been copied, and could not be read."""


def export(settings: ExportSettings) -> Exported:
    """Write the folder.

    Raises:
        SettingError: there is no table, the selection is wrong, or the folder can't be made.
    """
    table = ResultTable(settings.table)
    if not table.exists:
        raise SettingError(f"table {table.url!r}: no table is there; make one with `ssd-batch infer`")
    selection = Selection(table, settings)
    with NewFolder(settings.output) as folder:
        if settings.is_flat:
            return Exported(folder.url, write_flat(selection, folder, settings.format), None, 0)
        selection.check_one_model()
        if settings.coco_ids:
            num_boxes, num_images = coco.write_results(selection, folder, settings.coco_ids)
            return Exported(folder.url, num_boxes, num_images, 0)
        return write_data_set(selection, folder, settings.format, settings.copy_images)


def write_data_set(selection: Selection, folder: NewFolder, format_name: str, copies_images: bool) -> Exported:
    """Write a data set of one model's images into a folder.

    Args:
        selection: the images and boxes.
        folder: the folder to write to.
        format_name: a key of `DATA_SETS`.
        copies_images: copy the images, or name them only.
    """
    write, images_folder = DATA_SETS[format_name]
    exported = ExportedImages(folder, images_folder, selection.common_folder(), copies_images)
    return Exported(folder.url, write(selection, folder, exported), exported.num_images, exported.num_not_copied)
