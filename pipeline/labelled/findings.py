"""The findings of what is wrong with labelled data before a training: one function per finding."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.labelled.box_sizes import MATCH_IOU
from pipeline.labelled.image_facts import ImageFacts
from pipeline.labelled.record import Flaw, LabelledImage, find_flaws, is_of_shares

Level = Literal["error", "note"]

FINDING_TEXTS: dict[str, tuple[Level, str]] = {
    "broken_annotation": ("error", "annotations that can't be read"),
    "not_a_number": ("error", "boxes with a coordinate that is no number"),
    "shares": ("error", "images whose boxes are shares of their sides, within 0 to 1, where pixels are expected"),
    "unknown_class": ("error", "objects of a class that the model, or the first split, does not have"),
    "missing_image": ("error", "images that can't be read"),
    "unreadable_image": ("error", "images that can't be decoded"),
    "size_differs": ("error", "images of another size than their annotation says"),
    "leaked_image": ("error", "images that are in an earlier split, too"),
    "no_objects": ("error", "splits with nothing to learn from: no object but crowds, or none at all"),
    "without_area": ("note", "boxes without area, left out"),
    "outside": ("note", "boxes outside of their picture, left out"),
    "swapped": ("note", "boxes whose corners are swapped, mended"),
    "clipped": ("note", "boxes that reach over the border, clipped"),
    "similar_classes": ("note", "classes whose names are nearly the same"),
    "duplicate_image": ("note", "images that are in their split more than once"),
    "duplicate_box": ("note", "boxes given twice, with the same class"),
    "turned_image": ("note", "images that EXIF turns, whose boxes must be those of the upright picture"),
    "hard_to_match": ("note", f"objects that no default box overlaps by {MATCH_IOU}"),
    "empty_image": ("note", "images without objects"),
}
"""The level and the text of each kind of finding. An error would spoil a training; a note is dealt with, or a matter of taste."""


@dataclass(frozen=True, eq=False)
class Mark:
    """An image of a finding."""

    uri: str
    boxes_xyxy: NDArray[np.float64]
    """The boxes that show the finding, (K, 4)."""
    texts: tuple[str, ...]
    """The text to write at each box."""
    count: int
    """The number that the mark counts for: boxes, images or classes."""
    why: str = ""
    """The reason for the finding."""


@dataclass(frozen=True)
class Finding:
    """A kind of `FINDING_TEXTS` that was found in a split."""

    kind: str
    split: str
    marks: tuple[Mark, ...]

    @property
    def level(self) -> Level:
        """Return the level: an error would spoil a training."""
        return FINDING_TEXTS[self.kind][0]

    @property
    def count(self) -> int:
        """Return the number of boxes or images, as the kind says."""
        return sum(mark.count for mark in self.marks)


def whole(image: LabelledImage, why: str = "") -> Mark:
    """Make a mark of an image with all its boxes, counted once."""
    return Mark(image.uri, image.boxes_xyxy, image.class_names, 1, why)


def some(image: LabelledImage, chosen: NDArray[np.bool_], why: str = "") -> Iterator[Mark]:
    """Yield a mark of the boxes that a (N,) mask chooses, if any."""
    part = image.only(chosen)
    if part.class_names:
        yield Mark(part.uri, part.boxes_xyxy, part.class_names, len(part.class_names), why)


def flawed_boxes(images: Sequence[LabelledImage], flaw: Flaw) -> Iterator[Mark]:
    """Yield marks of the boxes that have a flaw."""
    for image in images:
        yield from some(image, find_flaws(image) == flaw)


def duplicate_boxes(images: Sequence[LabelledImage]) -> Iterator[Mark]:
    """Yield marks of the boxes that are equal to an earlier box of their image, with the same class."""
    for image in images:
        earlier: set[tuple[object, ...]] = set()
        repeated = []
        for name, box in zip(image.class_names, image.boxes_xyxy.tolist(), strict=True):
            repeated.append((name, *box) in earlier)
            earlier.add((name, *box))
        yield from some(image, np.array(repeated, dtype=np.bool_))


def unknown_classes(images: Sequence[LabelledImage], known: Collection[str]) -> Iterator[Mark]:
    """Yield marks of the objects whose class is not known. The reason names each class, and the one that may be meant."""
    spelled = {_folded(name): name for name in known}
    for image in images:
        unknown = [name not in known for name in image.class_names]
        names = sorted({name for name, is_unknown in zip(image.class_names, unknown, strict=True) if is_unknown})
        yield from some(
            image, np.array(unknown, dtype=np.bool_), ", ".join(_with_nearest(name, spelled) for name in names)
        )


def _with_nearest(name: str, spelled: Mapping[str, str]) -> str:
    nearest = get_close_matches(_folded(name), spelled, n=1)
    return f"{name!r} (perhaps {spelled[nearest[0]]!r}?)" if nearest else repr(name)


def _folded(name: str) -> str:
    """Return a class's name without the differences that people ignore: capitals, blanks, hyphens, underscores, the form of letters."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", name).casefold() if letter.isalnum())


def similar_classes(images: Sequence[LabelledImage], known: Collection[str]) -> Iterator[Mark]:
    """Yield marks of the classes that differ only by capitals, blanks, hyphens, underscores, or an s at the end.

    They may be one class, spelled twice.
    """
    counts = Counter(name for image in images for name in image.class_names)
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in sorted({*counts, *known}):
        spellings[_folded(name).removesuffix("s") or name].append(name)
    for names in spellings.values():
        if len(names) > 1:
            why = ", ".join(f"{name!r} ({counts[name]:,})" for name in names)
            yield Mark("", np.zeros((0, 4)), (), len(names), why)


def images_of_shares(images: Sequence[LabelledImage]) -> Iterator[Mark]:
    """Yield marks of the images whose boxes are shares of their sides."""
    return (whole(image) for image in images if is_of_shares(image))


def empty_images(images: Sequence[LabelledImage]) -> Iterator[Mark]:
    """Yield marks of the images without objects. The network learns from them what is background."""
    return (whole(image) for image in images if not image.class_names)


def unusable_images(
    images: Sequence[LabelledImage], facts: Mapping[str, ImageFacts], is_missing: bool
) -> Iterator[Mark]:
    """Yield marks of the images that can't be read at all if `is_missing` is set, or else the images that can't be decoded."""
    for image in images:
        fact = facts[image.uri]
        if fact.error and fact.is_missing == is_missing:
            yield whole(image, fact.error)


def other_sizes(images: Sequence[LabelledImage], facts: Mapping[str, ImageFacts]) -> Iterator[Mark]:
    """Yield marks of the images whose annotation has another size."""
    for image in images:
        fact = facts[image.uri]
        if image.size_px is None or fact.size_px in (None, image.size_px):
            continue
        found, said = (f"{width_px}×{height_px}" for width_px, height_px in (fact.size_px, image.size_px))
        turned = " (annotated before EXIF turns it)" if image.size_px == fact.stored_size_px else ""
        yield whole(image, f"{found}, annotated as {said}{turned}")


def turned_images(images: Sequence[LabelledImage], facts: Mapping[str, ImageFacts]) -> Iterator[Mark]:
    """Yield marks of the images that EXIF turns or mirrors, and that are not found by their size."""
    for image in images:
        fact = facts[image.uri]
        if fact.orientation != 1 and image.size_px in (None, fact.size_px):
            yield whole(image, f"orientation {fact.orientation}")


def duplicate_images(images: Sequence[LabelledImage], facts: Mapping[str, ImageFacts]) -> Iterator[Mark]:
    """Yield marks of the images whose file is equal, byte by byte, to the file of an earlier image of the split."""
    first: dict[str, str] = {}
    for image in images:
        sha256 = facts[image.uri].sha256
        if sha256 in first:
            yield whole(image, f"as {first[sha256]}")
        elif sha256:
            first[sha256] = image.uri


def leaked_images(
    images: Sequence[LabelledImage], earlier: Mapping[str, Sequence[LabelledImage]], facts: Mapping[str, ImageFacts]
) -> Iterator[Mark]:
    """Yield marks of the images whose file is in an earlier split, too. An evaluation on them would measure memory."""
    places: dict[str, list[str]] = defaultdict(list)
    for split, others in earlier.items():
        for other in others:
            places[facts[other.uri].sha256].append(f"{split}: {other.uri}")
    places.pop("", None)
    for image in images:
        if found := places.get(facts[image.uri].sha256):
            yield whole(image, f"in {found[0]}")


def hard_to_match(images: Sequence[LabelledImage], overlaps: Sequence[NDArray[np.float64]]) -> Iterator[Mark]:
    """Yield marks of the objects that no default box overlaps by half. Crowds do not count.

    Args:
        images: the cleaned images.
        overlaps: the overlaps (N,) of each image, from `best_overlaps`.
    """
    for image, of_image in zip(images, overlaps, strict=True):
        yield from some(image, (of_image < MATCH_IOU) & ~image.is_crowd)
