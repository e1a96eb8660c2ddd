"""Labelled images in Pascal VOC's layout: `Annotations`, `ImageSets/Main`, `JPEGImages`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

import torch
from defusedxml import DefusedXmlException, ElementTree
from torch import Tensor

from model.example import Example, Truth
from pipeline.decode import DecodeError, decode
from pipeline.errors import SettingError


class DataError(SettingError):
    """A data set that can't be used: which file, and what is wrong in it."""


@dataclass(frozen=True)
class Annotation:
    """One image's objects.

    boxes_xyxy: (N, 4) float pixels, 0-based, right and lower border outside; class_names: N; is_difficult: (N,) bool.
    """

    image_path: Path
    boxes_xyxy: Tensor
    class_names: tuple[str, ...]
    is_difficult: Tensor


class VocExamples(Sequence[Example]):
    """A split's images with their objects, decoded when asked for.

    Args:
        annotations: what `read_voc` gave.
        class_names: the class at index i has label i + 1.

    Raises:
        DataError: an object is of no known class.
    """

    def __init__(self, annotations: Sequence[Annotation], class_names: Sequence[str]) -> None:
        self._annotations = annotations
        label_ids = {name: index + 1 for index, name in enumerate(class_names)}
        for annotation in annotations:
            for name in annotation.class_names:
                if name not in label_ids:
                    raise DataError(f"{annotation.image_path}: class {name!r} is none of {', '.join(class_names)}")
        self._truths = [
            Truth(a.boxes_xyxy, torch.tensor([label_ids[n] for n in a.class_names], dtype=torch.int64), a.is_difficult)
            for a in annotations
        ]

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        path = self._annotations[index].image_path
        try:
            return Example(decode(path.read_bytes()), self._truths[index])
        except (OSError, DecodeError) as error:
            raise DataError(f"{path}: {error}") from error


def class_names(annotations: Sequence[Annotation]) -> tuple[str, ...]:
    """All classes that occur, sorted."""
    return tuple(sorted({name for annotation in annotations for name in annotation.class_names}))


def read_voc(root: Path, split: str) -> list[Annotation]:
    """The annotations that `ImageSets/Main/<split>.txt` lists, in its order. Boxes without area are left out.

    Raises:
        DataError: a file is missing or is not what VOC describes.
    """
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        raise DataError(f"{listing}: no such file; data must be a folder in VOC layout and have the split {split!r}")
    names = [line.split()[0] for line in listing.read_text().splitlines() if line.strip()]
    return [_read_annotation(root, name) for name in names]


def _read_annotation(root: Path, name: str) -> Annotation:
    path = root / "Annotations" / f"{name}.xml"
    try:
        tree = ElementTree.fromstring(path.read_bytes())
        file_name = tree.findtext("filename") or f"{name}.jpg"
        objects = [
            (
                [float(node.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")],
                node.findtext("name", "").strip(),
                node.findtext("difficult", "0").strip() == "1",
            )
            for node in tree.iter("object")
        ]
    except (OSError, ParseError, DefusedXmlException, ValueError) as error:
        raise DataError(f"{path}: not a VOC annotation ({error})") from error
    objects = [entry for entry in objects if entry[0][2] > entry[0][0] and entry[0][3] > entry[0][1]]
    # VOC counts pixels from 1 and includes the last: moving the first corner by one gives 0-based borders.
    boxes = torch.tensor([box for box, _, _ in objects]).reshape(-1, 4) - torch.tensor([1.0, 1.0, 0.0, 0.0])
    return Annotation(
        root / "JPEGImages" / file_name,
        boxes.clamp(min=0),
        tuple(label for _, label, _ in objects),
        torch.tensor([difficult for _, _, difficult in objects], dtype=torch.bool),
    )
