"""COCO's formats: the data set with boxes as annotations, and the results that its evaluation reads."""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from pipeline.errors import SettingError, reason
from pipeline.exports.exported_images import ExportedImages
from pipeline.exports.folder import NewFolder
from pipeline.exports.json_list import JsonList
from pipeline.exports.selection import SelectedImage, Selection
from pipeline.labelled.layouts.coco import CocoCategory, CocoImage
from pipeline.storage import store
from pipeline.urls import absolute

INSTANCES, RESULTS = "annotations/instances_found.json", "results.json"
DIGITS_PX, DIGITS_SCORE = 2, 5
"""The digits after the point: a hundredth of a pixel, which is COCO's own precision."""

Entry = dict[str, Any]


def write_coco(selection: Selection, folder: NewFolder, exported: ExportedImages) -> int:
    """Write a data set whose annotations have scores, and the same boxes as results. Return the number of boxes.

    Boxes are (x, y, width, height) in pixels from the upper left corner. A class's ID is its `label_id`.
    """
    names = selection.class_names()
    with (
        folder.file(RESULTS) as results_file,
        folder.file(INSTANCES) as instances_file,
        tempfile.TemporaryFile() as images_file,
    ):
        instances_file.write(b'{"annotations":')
        with JsonList(results_file) as results, JsonList(instances_file) as instances, JsonList(images_file) as images:
            for path, image in exported.with_paths(selection.images()):
                images.add(_image(images.num_entries + 1, path, image))
                for box in _boxes(image):
                    entry = {"image_id": images.num_entries, "category_id": box.pop("label_id"), **box}
                    results.add(entry)
                    instances.add({"id": instances.num_entries + 1, **entry, "iscrowd": 0})
        _finish(instances_file, images_file, names)
        return results.num_entries


def _finish(instances: BinaryIO, images: BinaryIO, names: dict[int, str]) -> None:
    instances.write(b',"images":')
    images.seek(0)
    shutil.copyfileobj(images, instances)
    categories = [{"id": label_id, "name": name} for label_id, name in names.items()]
    instances.write(b',"categories":' + msgspec.json.encode(categories) + b"}")


def _image(image_id: int, name: str, image: SelectedImage) -> Entry:
    width_px, height_px = image.size_px
    return {"id": image_id, "file_name": name, "width": width_px, "height": height_px, "uri": image.uri}


def _boxes(image: SelectedImage) -> Iterator[Entry]:
    """Yield each box as COCO has it, with its `label_id`."""
    for label_id, score, (xmin, ymin, xmax, ymax) in zip(
        image.label_ids.tolist(), image.scores.tolist(), image.boxes_xyxy.tolist(), strict=True
    ):
        bbox = [round(number, DIGITS_PX) for number in (xmin, ymin, xmax - xmin, ymax - ymin)]
        yield {
            "label_id": label_id, "bbox": bbox, "area": round(bbox[2] * bbox[3], DIGITS_PX), "score": round(score, DIGITS_SCORE),
        }  # fmt: skip


def write_results(selection: Selection, folder: NewFolder, annotations: str) -> tuple[int, int]:
    """Write the boxes as results with the IDs of given annotations.

    Images that the annotations do not list are left out.

    Args:
        selection: the images and boxes.
        folder: the folder to write to.
        annotations: the URL of COCO's annotations.

    Returns:
        The number of boxes, and the number of images.

    Raises:
        SettingError: the annotations can't be read, an image can't be told from another, a class is missing, or no image is listed.
    """
    file = _read(annotations)
    image_ids, category_ids = ImageIds(file, annotations), {str(entry.name): entry.id for entry in file.categories}
    if unknown := sorted(set(selection.class_names(are_chosen=True).values()) - set(category_ids)):
        raise SettingError(f"coco_ids: {annotations!r} has no category {', '.join(map(repr, unknown))}")
    num_images = 0
    taken: dict[Any, str] = {}
    with folder.file(RESULTS) as results_file, JsonList(results_file) as results:
        for image in selection.images():
            image_id = image_ids.of(image.uri)
            if image_id is None:
                continue
            num_images += 1
            if (other := taken.setdefault(image_id, image.uri)) != image.uri:
                raise SettingError(
                    f"coco_ids: {annotations!r} lists one image that may be {other!r} or {image.uri!r}; choose by where"
                )
            for name, box in zip(image.labels, _boxes(image), strict=True):
                results.add(
                    {
                        "image_id": image_id,
                        "category_id": category_ids[name],
                        "bbox": box["bbox"],
                        "score": box["score"],
                    }
                )
    if not num_images:
        raise SettingError(f"coco_ids: {annotations!r} lists none of the selected images")
    return results.num_entries, num_images


class Listed(msgspec.Struct):
    """The lists that annotations have. Those of COCO's test images have no boxes."""

    images: list[CocoImage]
    categories: list[CocoCategory]


def _read(url: str) -> Listed:
    try:
        return msgspec.json.decode(store.read(absolute(url)), type=Listed)
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingError(f"coco_ids: {url!r} is not COCO's annotations: {reason(error)}") from error


class ImageIds:
    """The IDs of images by URI: an image is the one whose `file_name` its URI ends with.

    Args:
        file: the annotations.
        url: where they are, for errors.
    """

    def __init__(self, file: Listed, url: str) -> None:
        self._url = url
        self._by_last_part: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        for image in file.images:
            path = "/" + image.file_name.lstrip("/")
            self._by_last_part[path.rpartition("/")[2]].append((path, image.id))

    def of(self, uri: str) -> Any:
        """Return an image's ID, or None if it is not listed.

        Raises:
            SettingError: several images are listed by this name.
        """
        listed = self._by_last_part.get(uri.rpartition("/")[2], [])
        found = {image_id for path, image_id in listed if f"/{uri}".endswith(path)}
        if len(found) > 1:
            raise SettingError(f"coco_ids: {self._url!r} lists several images that may be {uri!r}")
        return next(iter(found), None)
