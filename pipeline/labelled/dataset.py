"""The labelled data at paths or URLs: which layout each folder has, and which images a split holds."""

import hashlib
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from pipeline.errors import reason
from pipeline.labelled.layouts import coco, cvat, labelme, tables, voc, yolo
from pipeline.labelled.layouts.source import OnBroken, Source, UnsizedError, visible_names
from pipeline.labelled.record import DataError, Flaw, LabelledImage, clean
from pipeline.storage import store
from pipeline.urls import absolute

logger = logging.getLogger(__name__)

NUM_NAMED = 5
"""The most names of a folder that a message holds."""

DEALT_WITH: dict[Flaw, str] = {
    "without_area": "without area left out",
    "outside": "outside of their picture left out",
    "swapped": "with swapped corners mended",
    "clipped": "that reach over the border clipped",
}
WITH_SPLITS = (voc.splits, coco.splits, yolo.splits, tables.splits)
"""The functions that return the splits of a folder in a layout, by their names; none if it is in another layout."""
WITHOUT_SPLITS = (coco.undivided, voc.undivided, labelme.undivided, yolo.undivided, cvat.undivided, tables.undivided)
"""The functions that return all images of a folder in a layout; None if it is in another layout."""
TRAIN, VAL, TEST = ("train", "training"), ("val", "valid", "validation", "dev"), ("test", "testing")
ALIASES = (TRAIN, VAL, TEST)
"""The names that stand for one split."""
SPLIT_FOLDERS = {name for names in ALIASES for name in names}
"""The folders that each hold a split in a layout without splits, as Roboflow writes them."""
OF_A_SPLIT = re.compile(r"(?<![a-z])(train(ing|val)?|val(id|idation)?|dev|test(ing)?)\d*(?![a-z])", re.IGNORECASE)
"""A pattern of the names of splits, such as `trainval` or `val2017`."""
HELD_OUT_SHARE = 0.2
"""The share of images without splits that become the split `val`."""
AUGMENTED = re.compile(r"\.rf\.[0-9a-f]+")
"""The part of a name by which Roboflow tells the copies of one picture apart."""
LABEL_FILE = re.compile(r".*\.(ya?ml|json|xml|csv)", re.IGNORECASE)
"""The files that may be given instead of their folder."""


def raise_it(error: DataError) -> None:
    """Raise the error, so that the first broken annotation stops the reading."""
    raise error


def read_labelled(
    data: Sequence[str], split: str, on_broken: OnBroken = raise_it, beside: Collection[str] = ()
) -> list[LabelledImage]:
    """Return the images of a split of all data sets, one data set after the other, with their boxes as annotated.

    Args:
        data: folders by path or URL, in a layout of docs/data.md. A folder without the split is skipped, with a line in the log, as long as
            another folder has the split.
        split: the split's name. `val` also finds `valid` and `validation`. Data without splits is divided into `train` and `val`. If there is no
            `val`, it is `test`.
        on_broken: called with the error of each annotation that can't be read. By default, the error is raised.
        beside: the other splits that are read, too. If `val` is one, and the data has only `train`, a part of it is `val`, and not read.

    Raises:
        DataError: a folder is in no known layout, or none has the split.
    """
    folders = [found for url in data for found in find_splits(url)]
    if set(VAL) & {split, *beside}:
        folders = _with_val(folders)
    having = [(folder, source) for folder, sources in folders if (source := _of_split(sources, split))]
    if not having:
        where = "; ".join(f"{folder} has {', '.join(sources) or 'none'}" for folder, sources in folders)
        raise DataError(
            f"no data has the split {split!r}: {where}; name one that it has (--split; of a training --train-split and --val-split)"
        )
    for folder, sources in folders:
        if not _of_split(sources, split):
            logger.info("%s has no split %r: not part of it", folder, split)
    return [image for folder, source in having for image in _read(folder, source, split, on_broken)]


def other_splits(data: Sequence[str], splits: Collection[str]) -> list[str]:
    """Return those of the splits train, val and test that the data sets have beside some, unless one of these is read from them."""
    folders = [found for url in data for found in find_splits(url)]
    sources = [source for _, found in folders for source in found.items()]
    read = {name for name, source in sources if any(_of_split({name: source}, split) for split in splits)}
    if set(VAL) & set(splits) and not any(_of_split(found, "val") for _, found in folders):
        read |= set(TEST)  # see `_with_val`
    return sorted({name for name, _ in sources if name.lower() in SPLIT_FOLDERS} - read)


def _of_split(sources: dict[str, Source], split: str) -> Source | None:
    asked = (split.lower(), *next((names for names in ALIASES if split.lower() in names), ()))
    named = {name.lower(): source for name, source in reversed(sources.items())}
    return sources.get(split) or next((named[name] for name in asked if name in named), None)


def _with_val(folders: list[tuple[str, dict[str, Source]]]) -> list[tuple[str, dict[str, Source]]]:
    """Return data sets that have `train` and perhaps `test` with a `val`: the test images, or a part of the others."""
    names = {name.lower() for _, sources in folders for name in sources}
    if not names <= {*TRAIN, *TEST}:
        return folders
    tests = [(folder, _of_split(sources, "test")) for folder, sources in folders]
    if any(test for _, test in tests):
        said = "which is test, as there is no val"
        extra = [{"val": replace(test, instead=said)} if test else {} for _, test in tests]
        return [(folder, sources | val) for (folder, sources), val in zip(folders, extra, strict=True)]
    said = "a part of train, as there is no val"
    return [
        (folder, {name: replace(part, instead=said) for name, part in divided(source).items()})
        for folder, sources in folders
        for source in sources.values()
    ]


def _read(folder: str, source: Source, split: str, on_broken: OnBroken) -> list[LabelledImage]:
    logger.info("%s: %s%s in the layout of %s", folder, split, source.instead and f" ({source.instead})", source.layout)
    return source.read(on_broken)


def read_clean(
    data: Sequence[str], split: str, beside: Collection[str] = (), on_broken: OnBroken = raise_it
) -> list[LabelledImage]:
    """Return a split's images with only the boxes that can be learned from, and log what was left out; see `read_labelled`.

    Raises:
        DataError: the data can't be used.
    """
    images, flaws = clean(read_labelled(data, split, on_broken, beside))
    num_objects = sum(len(image.class_names) for image in images)
    said = [f"{flaws[flaw]:,} boxes {what}" for flaw, what in DEALT_WITH.items() if flaws[flaw]]
    logger.info("%s", "; ".join([f"{split}: {len(images):,} images, {num_objects:,} objects", *said]))
    return images


def find_splits(url: str) -> list[tuple[str, dict[str, Source]]]:
    """Return a data set's folder, and its splits by their names. A VOCdevkit has several folders.

    Args:
        url: the folder, or a file that describes the data set, such as `data.yaml`.

    Raises:
        DataError: nothing is there, or it is in no known layout.
    """
    place = absolute(url).rstrip("/")
    above, _, name = place.rpartition("/")
    folder, names = (above, {name}) if LABEL_FILE.fullmatch(name) else (place, _names(place))
    if folder != place and not store.exists(place):
        raise DataError(f"data {url!r} is not there")
    try:
        if found := _find(folder, names):
            return [(folder, found)]
        years = [f"{folder}/{name}" for name in sorted(names) if name.startswith("VOC")]
        if devkit := [(year, found) for year in years if (found := voc.splits(year, _names(year)))]:
            return devkit
    except OSError as error:
        raise DataError(f"data {url!r} can't be read: {reason(error)}") from error
    within = {name for split in _split_folders(names) for name in _names(f"{folder}/{split}")}
    raise DataError(
        f"data {url!r} is no data set that can be read: {describe_folder(names | within)}. docs/data.md shows each layout as a tree"
    )


def _find(folder: str, names: set[str]) -> dict[str, Source]:
    """Return the splits of a folder in any layout, or none."""
    for splits in WITH_SPLITS:
        if found := splits(folder, names):
            return _with_parts(found)
    of_folders = {name: _undivided(f"{folder}/{name}", _names(f"{folder}/{name}")) for name in _split_folders(names)}
    if in_folders := {name: source for name, source in of_folders.items() if source}:
        return in_folders
    if found := tables.splits_in_pixels(folder, names):
        return found
    if found_source := _undivided(folder, names):
        return divided(found_source)
    return {}


def _split_folders(names: set[str]) -> list[str]:
    return sorted(name for name in names if name.lower() in SPLIT_FOLDERS)


def _with_parts(sources: dict[str, Source]) -> dict[str, Source]:
    """Return the splits of a folder. Of a single one that is none by its name, such as CVAT's `default`, `train` and `val` are parts."""
    if len(sources) > 1 or any(OF_A_SPLIT.search(name) for name in sources):
        return sources
    ((name, whole),) = sources.items()
    parts = {part: replace(source, instead=f"a part of {name}") for part, source in divided(whole).items()}
    return sources | parts


def _undivided(folder: str, names: set[str]) -> Source | None:
    return next((found for undivided in WITHOUT_SPLITS if (found := undivided(folder, names))), None)


def divided(source: Source) -> dict[str, Source]:
    """Return the splits `train` and `val` of images without splits.

    A fifth of the names is held out, chosen by their hashes: whatever the order and the folder, and nearly the same when images come. Copies of one picture, as
    Roboflow makes them, are in one split.
    """

    def read(is_held_out: bool, on_broken: OnBroken) -> list[LabelledImage]:
        unsized: list[UnsizedError] = []
        images = source.read(
            lambda error: unsized.append(error) if isinstance(error, UnsizedError) else on_broken(error)
        )
        names = {_picture(uri) for uri in [*(image.uri for image in images), *(error.uri for error in unsized)]}
        pictures = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        held_out = set(pictures[: max(1, round(HELD_OUT_SHARE * len(pictures)))] if len(pictures) > 1 else ())
        for error in unsized:
            if (_picture(error.uri) in held_out) == is_held_out:
                on_broken(error)
        return [image for image in images if (_picture(image.uri) in held_out) == is_held_out]

    return {name: Source(source.layout, partial(read, name == "val")) for name in ("train", "val")}


def _picture(uri: str) -> str:
    """Return the name that all copies of a picture have."""
    return AUGMENTED.sub("", uri.rpartition("/")[2].rpartition(".")[0])


OTHERS: tuple[tuple[str, str, str], ...] = (
    (r".*\.json$", "JSON of another kind", "export it as COCO"),
    (r"data\.ya?ml$|labels$", "YOLO's layout without names of classes", "name them in data.yaml, or in classes.txt"),
    (r".*\.xml$", "annotations alone", "put them beside their images, or into Annotations beside JPEGImages"),
    (r".*\.csv$", "a table of another kind", "its columns must be filename, class, xmin, ymin, xmax, ymax"),
    (r"Annotations$|JPEGImages$", "VOC's folders without annotations", "put the XML files into Annotations"),
    (r".*\.(jpe?g|png|webp|bmp|tiff?)$", "images alone", "name the folder that has their annotations, too"),
    (r".*\.(zip|tar|gz|tgz)$", "an archive", "unpack it"),
)
"""The other kinds of data: a file's or folder's name as a regular expression, the kind, and how to make the data readable."""


def describe_folder(names: Collection[str]) -> str:
    """Return what a folder without a known layout holds, and what to do."""
    if not names:
        return "the folder is empty"
    for pattern, what, advice in OTHERS:
        if found := sorted(name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)):
            return f"it looks like {what} ({found[0]}); {advice}"
    return f"found {', '.join(sorted(names)[:NUM_NAMED])}{' and more' if len(names) > NUM_NAMED else ''}"


def _names(folder: str) -> set[str]:
    try:
        return visible_names(folder)
    except OSError as error:
        raise DataError(f"data {folder!r} can't be read: {reason(error)}") from error
