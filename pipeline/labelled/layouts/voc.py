"""The labelled images in Pascal VOC's layout: `Annotations`, `ImageSets/Main`, `JPEGImages`."""

import codecs
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException, ElementTree
from numpy.typing import NDArray

from pipeline.errors import reason
from pipeline.inputs.listing import IMAGE_SUFFIXES, is_image
from pipeline.labelled.layouts.source import OnBroken, Source, in_threads, keep_sound, visible_names
from pipeline.labelled.record import DataError, LabelledImage
from pipeline.storage import store
from pipeline.texts import decode_text

LAYOUT = "Pascal VOC"
ANNOTATIONS = re.compile(r"annot\w*|labels?|xmls?", re.IGNORECASE)
IMAGES = re.compile(r"jpegimages|images?|img|imgs|pictures|photos", re.IGNORECASE)
"""The names of the folders of annotations and of images, where no list names the images."""
FLAG = re.compile(r"\s+(-1|0|1)$")
"""The flag after an image's ID in the list of a class: it says whether the class is in the picture."""
ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")


def splits(folder: str, names: set[str]) -> dict[str, Source]:
    """Return the splits that `ImageSets/Main` lists."""
    if "ImageSets" not in names:
        return {}
    lists = f"{folder}/ImageSets/Main"
    with _named(lists):
        listed = sorted(name.removesuffix(".txt") for name in visible_names(lists) if name.endswith(".txt"))
    return {split: Source(LAYOUT, partial(read_voc, folder, split)) for split in listed}


def undivided(folder: str, names: set[str]) -> Source | None:
    """Return the images of a folder with annotations, but without lists of splits."""
    photographs = sorted(filter(IMAGES.fullmatch, names))
    for annotations in sorted(filter(ANNOTATIONS.fullmatch, names)) if photographs else ():
        files = visible_names(f"{folder}/{annotations}")
        image_ids = _annotated(files)
        if len(image_ids) > sum(name.endswith(".txt") for name in files):  # else these are YOLO's
            return Source(LAYOUT, partial(_read, f"{folder}/{annotations}", f"{folder}/{photographs[0]}", image_ids))
    stems = {name.rpartition(".")[0] for name in names if is_image(name)}
    of_yolo = sum(name.endswith(".txt") and name[:-4] in stems for name in names)
    if stems and len(image_ids := _annotated(names)) >= max(1, of_yolo):
        return Source(LAYOUT, partial(_read, folder, folder, image_ids))
    return None


def _annotated(names: Iterable[str]) -> list[str]:
    """Return the IDs that have an annotation among files."""
    return sorted(name[:-4] for name in names if name.endswith(".xml") and name != "annotations.xml")


def read_voc(folder: str, split: str, on_broken: OnBroken) -> list[LabelledImage]:
    """Return the images that `ImageSets/Main/<split>.txt` lists by ID, in its order, with their boxes as annotated.

    An ID has the annotation `Annotations/<ID>.xml` and the image of that name in `JPEGImages`, whatever its suffix. Only if there is no
    such image, `<filename>` names it.

    Args:
        folder: the folder's path or URL, absolute.
        split: the split's name: train, val and so on.
        on_broken: called with an error for each annotation that is missing, is not what VOC describes, or names the image of another ID.
            Such annotations are left out.

    Raises:
        DataError: the listing, or the folder of images, can't be read.
    """
    listing = f"{folder}/ImageSets/Main/{split}.txt"
    with _named(listing):
        lines = decode_text(store.read(listing)).splitlines()
    return _read(f"{folder}/Annotations", f"{folder}/JPEGImages", _image_ids(folder, lines), on_broken)


def _read(annotations: str, photographs: str, image_ids: list[str], on_broken: OnBroken) -> list[LabelledImage]:
    with _named(photographs):
        images = Images(photographs, visible_names(photographs), image_ids)

    def read(image_id: str) -> LabelledImage | DataError:
        url = f"{annotations}/{image_id}.xml"
        try:
            return _parse(_root(store.read(url)), images, image_id)
        except (OSError, ParseError, DefusedXmlException, ValueError, LookupError) as error:
            return DataError(f"{url}: not a VOC annotation ({reason(error)})")

    return keep_sound(in_threads(read, image_ids), on_broken)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Raise a `DataError` that names the file or folder if it can't be read."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{url}: can't be read ({reason(error)})") from error


def _image_ids(folder: str, lines: Iterable[str]) -> list[str]:
    """Return the IDs of a listing. Text like a class's flag after an ID is part of the ID if an annotation has that name."""
    stripped = [line.strip() for line in lines if line.strip()]
    if not any(FLAG.search(line) for line in stripped):
        return stripped
    annotations = f"{folder}/Annotations"
    with _named(annotations):
        annotated = visible_names(annotations)
    return [line if f"{line}.xml" in annotated else FLAG.sub("", line) for line in stripped]


class Images:
    """Pairs the IDs of a split with image files.

    Args:
        folder: the folder of the images.
        files: the names in the folder.
        image_ids: the IDs of the split.
    """

    def __init__(self, folder: str, files: Iterable[str], image_ids: Sequence[str]) -> None:
        self._folder, self._files = folder, frozenset(files)
        self._listed = frozenset(image_ids)
        self._of_id: Mapping[str, list[str]] = defaultdict(list)
        self._of_folded: Mapping[str, list[str]] = defaultdict(list)
        for file in sorted(self._files):
            image_id = file.rpartition(".")[0] or file
            self._of_id[image_id].append(file)
            self._of_folded[image_id.casefold()].append(file)

    def uri(self, image_id: str, filename: str) -> str:
        """Return the URI of an ID's image. A missing image gets the name that it should have.

        Args:
            image_id: the ID as listed.
            filename: the name in the annotation, perhaps a path of another machine, or "".

        Raises:
            ValueError: the annotation names the image of another ID, or there are several images and it names none of them.
        """
        named = filename.replace("\\", "/").rpartition("/")[2]
        other = named.rpartition(".")[0] or named
        if named and other != image_id and other in self._listed:
            raise ValueError(
                f"<filename> is {named!r}, the image of {other!r}, which is listed, too; that of {image_id!r} is expected"
            )
        found = self._of_id.get(image_id) or self._of_folded.get(image_id.casefold(), [])
        if len(found) > 1:  # Other files may be labels that are stored next to their images.
            found = [file for file in found if file.lower().endswith(IMAGE_SUFFIXES)] or found
        if len(found) > 1 and named not in found:
            raise ValueError(f"several images have this name: {', '.join(found)}; <filename> must be one of them")
        if named in found or (not found and named in self._files):
            return f"{self._folder}/{named}"
        return f"{self._folder}/{found[0] if found else named or f'{image_id}.jpg'}"


def _root(content: bytes) -> Element:
    """Return the parsed annotation, with names without namespaces.

    Raises:
        ParseError, DefusedXmlException: the content is no XML, or none that is safe to read.
        LookupError, UnicodeDecodeError: the encoding is unknown, or the content is in another one.
        ValueError: the content is XML of something else.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    if (declared := ENCODING.match(content)) and not declared[1].lower().startswith(b"utf-16"):
        # The parser itself knows four encodings.
        text = content[declared.end() :].decode(declared[1].decode())
        root = ElementTree.fromstring(text)
    else:
        root = ElementTree.fromstring(content)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    if root.tag != "annotation":
        what = (
            "CVAT's own format; put it beside its images as annotations.xml"
            if root.tag == "annotations"
            else "XML of something else"
        )
        raise ValueError(f"its root is <{root.tag}>, not <annotation>: {what}")
    return root


def _parse(tree: Element, images: Images, image_id: str) -> LabelledImage:
    objects = list(tree.iter("object"))
    names = tuple((node.findtext("name") or "").strip() for node in objects)
    if not all(names):
        raise ValueError("an object has no name")
    corners = [[_number(node, side) for side in ("xmin", "ymin", "xmax", "ymax")] for node in objects]
    boxes = _zero_based(np.array(corners, dtype=np.float64).reshape(-1, 4))
    return LabelledImage(
        uri=images.uri(image_id, (tree.findtext("filename") or "").strip()),
        size_px=_size(tree),
        boxes_xyxy=boxes,
        class_names=names,
        is_difficult=np.array([(node.findtext("difficult") or "").strip() == "1" for node in objects], dtype=np.bool_),
        is_crowd=np.zeros(len(objects), dtype=np.bool_),
        areas=abs(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
    )


def _zero_based(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move the lower corner by one, which gives 0-based borders. VOC counts pixels from 1 and includes the last.

    A corner at 0 comes from a tool that counts from 0, and is not moved. A box without area is not moved either, so that it gets none.
    """
    first, second = corners[:, :2], corners[:, 2:]
    return np.concatenate(
        (first - ((first != 0) & (first < second)), second - ((second != 0) & (second < first))), axis=1
    )


def _number(node: Element, side: str) -> float:
    """Return a coordinate, or NaN if there is no finite number."""
    try:
        value = float(node.findtext(f"bndbox/{side}", ""))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _size(tree: Element) -> tuple[int, int] | None:
    """Return the width and height, or None. Some tools write no size, or zeros."""
    try:
        width_px, height_px = (int(float(tree.findtext(f"size/{side}", ""))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width_px, height_px) if width_px > 0 and height_px > 0 else None
