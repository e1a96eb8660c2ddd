import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.labelled.dataset import find_splits, raise_it
from pipeline.labelled.record import LabelledImage

SIZE_PX = (40, 20)
BOXES = {"a": [(1, "cat", (4, 2, 20, 10)), (2, "dog", (10, 5, 40, 20))], "b": [(2, "dog", (0, 0, 8, 4))], "c": []}
"""The objects of the pictures of each data set: a class, from 1, and corners in pixels."""
NAMES = ("cat", "dog")

Objects = dict[str, list[tuple[str, tuple[float, ...]]]]


class Files:
    """Writes data sets in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size_px, self.boxes, self.names = SIZE_PX, BOXES, NAMES

    def text(self, path: str, content: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(content)

    def json(self, path: str, content: object) -> None:
        self.text(path, json.dumps(content))

    def image(self, path: str, **options: object) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE_PX, "red").save(self.folder / path, **options)

    def yolo(self, name: str) -> str:
        """The lines of a picture."""
        lines = []
        for label_id, _, (xmin, ymin, xmax, ymax) in BOXES[name]:
            shares = ((xmin + xmax) / 80, (ymin + ymax) / 40, (xmax - xmin) / 40, (ymax - ymin) / 20)
            lines.append(" ".join(map(str, (label_id - 1, *shares))))
        return "\n".join(lines)

    def voc(self, name: str) -> str:
        """The XML of a picture, whose pixels count from 1."""
        things = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{box[0] + 1}</xmin><ymin>{box[1] + 1}</ymin>"
            f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
            for _, label, box in BOXES[name]
        )
        return f"<annotation><size><width>40</width><height>20</height></size>{things}</annotation>"

    def coco(self, *names: str, path: str = "{}.jpg") -> dict[str, object]:
        """A file of pictures, whose names have this form."""
        images = [
            {"id": number, "file_name": path.format(name), "width": 40, "height": 20}
            for number, name in enumerate(names)
        ]
        annotations = [
            {"image_id": number, "category_id": label_id, "bbox": [x, y, right - x, bottom - y]}
            for number, name in enumerate(names)
            for label_id, _, (x, y, right, bottom) in BOXES[name]
        ]
        categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
        return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def found(tmp_path: Path):
    """The objects of a data set's splits, by the names of images."""

    def found(path: str = "", on_broken=raise_it) -> dict[str, Objects]:
        ((_, sources),) = find_splits(str(tmp_path / path))
        return {split: objects(source.read(on_broken)) for split, source in sources.items()}

    return found


def objects(images: list[LabelledImage]) -> Objects:
    """The objects of images, by names. Each image has the size that it should have, and is there."""
    for image in images:
        assert image.size_px in (SIZE_PX, None)
        assert Path(image.uri).exists(), image.uri
    return {
        Path(image.uri).name: [
            (name, tuple(round(side, 3) for side in box))
            for name, box in zip(image.class_names, image.boxes_xyxy.tolist(), strict=True)
        ]
        for image in images
    }


@pytest.fixture
def expected():
    """The objects that pictures must have."""

    def expected(*names: str, suffix: str = ".jpg") -> Objects:
        return {f"{name}{suffix}": [(label, tuple(map(float, box))) for _, label, box in BOXES[name]] for name in names}

    return expected
