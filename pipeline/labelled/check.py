"""The check of labelled data before a training: all findings, class counts, and how default boxes fit."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import Architecture
from pipeline.labelled import findings
from pipeline.labelled.box_sizes import best_overlaps, describe_sizes, shares_xyxy
from pipeline.labelled.choices import Choice, choose
from pipeline.labelled.dataset import other_splits, read_labelled
from pipeline.labelled.findings import Finding, Mark
from pipeline.labelled.image_facts import ImageFacts, look_at
from pipeline.labelled.record import (
    DataError,
    LabelledImage,
    class_names,
    clean,
    find_flaws,
    is_of_shares,
    num_to_learn_from,
)
from pipeline.progress import Progress

logger = logging.getLogger(__name__)

MANY_UNMATCHED = 1 / 3
"""The share of a split's objects without a fitting default box from which advice is given."""


@dataclass(frozen=True, eq=False)
class SplitReport:
    """The report on a split's images and objects."""

    num_images: int
    class_counts: dict[str, int]
    """The number of objects of each class, as annotated."""
    sizes: dict[str, Any]
    """The result of `describe_sizes`."""
    overlaps: NDArray[np.float64]
    """The best overlaps of the split's objects, (N,)."""
    choices: list[Choice]
    """The settings that a training on the split takes unless they are given."""

    @property
    def num_objects(self) -> int:
        """Return the number of objects, as annotated."""
        return sum(self.class_counts.values())

    def advice(self, architecture: Architecture) -> str:
        """Return what may help if many objects have no default box that fits them, or "" if few have none."""
        if not len(self.overlaps) or (share := self.sizes["share_below_half"]) < MANY_UNMATCHED:
            return ""
        shorter_px, smallest_px = (
            self.sizes["shorter_side_px"]["median"],
            architecture.scales[0] * architecture.image_size_px,
        )
        ways = ["--match-iou 0.4 takes default boxes that fit less"]
        if shorter_px < smallest_px:
            start = shorter_px / architecture.image_size_px
            ways.insert(
                0, f"--scales that begin at {start:.2f} instead of {architecture.scales[0]:g} make smaller ones"
            )
            if architecture.kind == "ssd300_vgg16":
                ways.insert(0, "--architecture ssd512_vgg16 shows objects larger to the network")
        return f"{share:.0%} of the objects have no default box that fits: {'; '.join(ways)}"


@dataclass(frozen=True)
class DataReport:
    """The result of a check: a report per split, and all findings."""

    splits: dict[str, SplitReport]
    findings: list[Finding]

    @property
    def is_sound(self) -> bool:
        """Is there nothing that would spoil a training?"""
        return not any(finding.level == "error" for finding in self.findings)


def check_data(
    data: Sequence[str], splits: Sequence[str], known: Sequence[str] | None, architecture: Architecture
) -> DataReport:
    """Read all annotations and all images, and report what is wrong with them.

    Args:
        data: see `read_labelled`.
        splits: the splits to check. The first is the one to learn from.
        known: the classes that may occur. None means the classes of the first split.
        architecture: the architecture whose default boxes must fit.

    Raises:
        DataError: the data can't be read at all.
    """
    broken: dict[str, list[DataError]] = {split: [] for split in splits}
    images = {split: read_labelled(data, split, broken[split].append, splits) for split in splits}
    if others := other_splits(data, splits):
        logger.info("not checked: %s; --split checks others than %s", ", ".join(others), ", ".join(splits))
    facts = _look_at(image.uri for of_split in images.values() for image in of_split)
    known = class_names(images[splits[0]]) if known is None else known
    found: list[Finding] = []
    reports = {}
    for number, split in enumerate(splits):
        earlier = {name: images[name] for name in splits[:number]}
        cleaned = _clean(images[split])
        sized, shares = _sized(cleaned, facts)
        overlaps = _best_overlaps(shares, architecture)
        choices = [] if number else choose(sized, architecture)
        reports[split] = _report(images[split], sized, shares, overlaps, architecture, choices)
        marks: dict[str, Iterable[Mark]] = {
            "broken_annotation": (_unplaced(str(error)) for error in broken[split]),
            "no_objects": [] if num_to_learn_from(cleaned) else [_unplaced(_why_nothing(images[split]))],
            "hard_to_match": findings.hard_to_match(sized, overlaps),
            **_by_annotation(images[split], known),
            **_by_image(images[split], earlier, facts),
        }
        found += [Finding(kind, split, tuple(marks[kind])) for kind in findings.FINDING_TEXTS]
    return DataReport(reports, sorted((f for f in found if f.marks), key=lambda f: f.level))  # errors before notes


def _look_at(uris: Iterable[str]) -> dict[str, ImageFacts]:
    wanted = list(dict.fromkeys(uris))
    facts = {}
    with closing(Progress(len(wanted))) as progress:
        for uri, seen in look_at(wanted):
            facts[uri] = seen
            progress.update(1, int(bool(seen.error)))
    return facts


def _by_annotation(images: Sequence[LabelledImage], known: Sequence[str]) -> dict[str, Iterator[Mark]]:
    return {
        "not_a_number": findings.flawed_boxes(images, "not_a_number"),
        "shares": findings.images_of_shares(images),
        "without_area": findings.flawed_boxes(images, "without_area"),
        "outside": findings.flawed_boxes(images, "outside"),
        "swapped": findings.flawed_boxes(images, "swapped"),
        "clipped": findings.flawed_boxes(images, "clipped"),
        "similar_classes": findings.similar_classes(images, known),
        "unknown_class": findings.unknown_classes(images, known),
        "duplicate_box": findings.duplicate_boxes(images),
        "empty_image": findings.empty_images(images),
    }


def _by_image(
    images: Sequence[LabelledImage], earlier: Mapping[str, Sequence[LabelledImage]], facts: Mapping[str, ImageFacts]
) -> dict[str, Iterator[Mark]]:
    return {
        "missing_image": findings.unusable_images(images, facts, is_missing=True),
        "unreadable_image": findings.unusable_images(images, facts, is_missing=False),
        "size_differs": findings.other_sizes(images, facts),
        "turned_image": findings.turned_images(images, facts),
        "duplicate_image": findings.duplicate_images(images, facts),
        "leaked_image": findings.leaked_images(images, earlier, facts),
    }


def _why_nothing(images: Sequence[LabelledImage]) -> str:
    num_objects = sum(len(image.class_names) for image in images)
    num_crowds = sum(int(image.is_crowd.sum()) for image in images)
    return f"{len(images):,} images, {num_objects:,} objects as annotated, {num_crowds:,} of them crowds"


def _unplaced(why: str) -> Mark:
    """Make a mark that belongs to no image."""
    return Mark("", np.zeros((0, 4)), (), 1, why)


def _clean(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Clean images with `clean`, after boxes that are no numbers, or shares, were left out."""
    return clean(image.only((find_flaws(image) != "not_a_number") & (not is_of_shares(image))) for image in images)[0]


def _sized(
    images: Sequence[LabelledImage], facts: Mapping[str, ImageFacts]
) -> tuple[list[LabelledImage], list[NDArray[np.float64]]]:
    """Return the images whose size is annotated, or else found, and the boxes (N, 4) of each as shares of that size."""
    sized, shares = [], []
    for image in images:
        if size_px := image.size_px or facts[image.uri].size_px:
            sized.append(replace(image, size_px=size_px))
            shares.append(shares_xyxy(image, size_px))
    return sized, shares


def _best_overlaps(shares: Sequence[NDArray[np.float64]], architecture: Architecture) -> list[NDArray[np.float64]]:
    """Return the `best_overlaps` of each image, computed for all images at once."""
    overlaps = best_overlaps(np.concatenate([np.zeros((0, 4)), *shares]), architecture)
    ends = np.cumsum([len(boxes) for boxes in shares], dtype=np.int64)
    return [overlaps[end - len(boxes) : end] for end, boxes in zip(ends, shares, strict=True)]


def _report(
    images: Sequence[LabelledImage],
    sized: Sequence[LabelledImage],
    shares: Sequence[NDArray[np.float64]],
    overlaps: Sequence[NDArray[np.float64]],
    architecture: Architecture,
    choices: list[Choice],
) -> SplitReport:
    counts = Counter(name for image in images for name in image.class_names)
    is_one = ~np.concatenate([np.zeros(0, dtype=np.bool_), *(image.is_crowd for image in sized)])
    boxes = np.concatenate([np.zeros((0, 4)), *shares])[is_one]
    best = np.concatenate([np.zeros(0), *overlaps])[is_one]
    sizes = describe_sizes(boxes, best, architecture.image_size_px)
    return SplitReport(len(images), dict(sorted(counts.items())), sizes, best, choices)
