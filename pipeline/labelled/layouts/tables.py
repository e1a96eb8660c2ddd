"""The labelled images in CSV files with a row per box: Roboflow's, and Open Images' with boxes as shares of the sides."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from pipeline.errors import reason
from pipeline.labelled.layouts.source import (
    UNDIVIDED,
    OnBroken,
    Place,
    Source,
    image_folders,
    images_below,
    keep_sound,
    new_image,
    plain_path,
    sizes_of,
    visible_names,
)
from pipeline.labelled.record import DataError, LabelledImage
from pipeline.storage import store
from pipeline.texts import decode_text

LAYOUT, OPEN_IMAGES = "CSV", "Open Images"
PIXELS = {"filename", "class", "xmin", "ymin", "xmax", "ymax"}
SHARES = {"ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"}
"""The columns that each kind of file has."""
SPLIT = re.compile(r"(?:^|[-_])(train|validation|valid|val|test)(?=[-_.])", re.IGNORECASE)
"""The split in the name of a file, such as `validation-annotations-bbox.csv` or `train_labels.csv`."""
WITHIN = ("annotations", "data", "images", "labels")
"""The folders in which the files of splits may be."""
DESCRIPTIONS = re.compile(r".*class-descriptions.*\.csv", re.IGNORECASE)

Row = dict[str, str]


def splits(folder: str, names: set[str]) -> dict[str, Source]:
    """Return the splits whose files of Open Images are in a folder, or in `annotations` or `labels` in it."""
    for place in (folder, *(f"{folder}/{name}" for name in ("annotations", "labels") if name in names)):
        described = sorted(filter(DESCRIPTIONS.fullmatch, visible_names(place)))
        classes = f"{place}/{described[0]}" if described else ""
        if found := _of_splits(place, SHARES):
            return {
                split: Source(OPEN_IMAGES, partial(_read_shares, folder, split, url, classes))
                for split, url in found.items()
            }
    return {}


def splits_in_pixels(folder: str, names: set[str]) -> dict[str, Source]:
    """Return the splits with a file each of boxes in pixels, such as `train_labels.csv`, in a folder, or in `data` or the like in it."""
    for place in (folder, *(f"{folder}/{name}" for name in WITHIN if name in names)):
        if found := _of_splits(place, PIXELS):
            return {
                split: Source(LAYOUT, partial(_read_pixels, image_folders(folder, split), url))
                for split, url in found.items()
            }
    return {}


def _of_splits(folder: str, columns: set[str]) -> dict[str, str]:
    """Return the files that have a split's name in their own, by these names.

    Raises:
        DataError: two files are of one split.
    """
    found: dict[str, str] = {}
    for name in sorted(visible_names(folder)):
        url = f"{folder}/{name}"
        if name.lower().endswith(".csv") and (named := SPLIT.search(name)) and _header(url) >= columns:
            if (split := named[1].lower()) in found:
                raise DataError(
                    f"{url} and {found[split]} are both of the split {split}; leave one of them in the folder"
                )
            found[split] = url
    return found


def undivided(folder: str, names: set[str]) -> Source | None:
    """Return the images of a folder with one CSV file of boxes in pixels, as Roboflow writes it.

    Raises:
        DataError: several files have such columns. One of them may hold what a model found.
    """
    files = [f"{folder}/{name}" for name in sorted(names) if name.lower().endswith(".csv")]
    urls = [url for url in files if _header(url) >= PIXELS]
    if len(urls) > 1:
        raise DataError(
            f"{folder} has {len(urls)} tables of boxes; name the one to read: --data {urls[0]}, or {urls[1]}"
        )
    return Source(LAYOUT, partial(_read_pixels, image_folders(folder, UNDIVIDED), urls[0])) if urls else None


def _header(url: str) -> set[str]:
    """Return the names of a file's columns."""
    fs, path = store.filesystem(url)
    beginning = fs.cat_file(path, start=0, end=4096)
    try:
        first = decode_text(beginning[: beginning.find(b"\n") if b"\n" in beginning else None])
    except UnicodeDecodeError:
        return set()
    return {name.strip() for name in next(csv.reader([first]), [])}


def _rows(url: str) -> Iterator[Row]:
    try:
        text = decode_text(store.read(url))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{url}: can't be read ({reason(error)})") from error
    try:
        lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        columns = [name.strip() for name in next(lines)]
        for line in lines:
            if line:
                yield dict(zip(columns, [*map(str.strip, line), *[""] * len(columns)], strict=False))
    except csv.Error as error:
        raise DataError(f"{url}: not a table ({reason(error)})") from error


def _read_pixels(folders: Sequence[str], url: str, on_broken: OnBroken) -> list[LabelledImage]:
    by_image: dict[str, list[Row]] = defaultdict(list)
    for row in _rows(url):
        by_image[plain_path(row["filename"])].append(row)
    place = Place.of(folders, list(by_image))

    def labelled(name: str, rows: list[Row]) -> LabelledImage | DataError:
        objects = [row for row in rows if row["class"]]  # an image without objects has a row without a class
        try:
            boxes = [[float(row[side]) for side in ("xmin", "ymin", "xmax", "ymax")] for row in objects]
            sides = tuple(int(float(rows[0].get(side) or 0)) for side in ("width", "height"))
        except (TypeError, ValueError) as error:
            return DataError(f"{url}: image {name!r}: {reason(error)}")
        size_px = (sides[0], sides[1]) if min(sides) > 0 else None
        return new_image(place.uri(name), size_px, [row["class"] for row in objects], boxes)

    return keep_sound((labelled(name, rows) for name, rows in by_image.items()), on_broken)


def _read_shares(folder: str, split: str, url: str, classes: str, on_broken: OnBroken) -> list[LabelledImage]:
    """Read a file of Open Images. Of the images that it lists, those are taken that are there: few have all."""
    described = decode_text(store.read(classes)) if classes else ""
    names = {line[0].strip(): line[1].strip() for line in csv.reader(io.StringIO(described)) if len(line) > 1}
    by_image: dict[str, list[Row]] = defaultdict(list)
    for row in _rows(url):
        by_image[row["ImageID"]].append(row)
    places = image_folders(folder, split)
    place = next(place for place in places if store.exists(place))
    uris = [uri for uri in images_below(place) if _stem(uri) in by_image]
    if not uris:
        raise DataError(f"{url}: none of the {len(by_image):,} images that it lists is in {', '.join(places)}")

    def labelled(uri: str, size_px: tuple[int, int] | DataError) -> LabelledImage | DataError:
        rows = by_image[_stem(uri)]
        if isinstance(size_px, DataError):
            return size_px
        try:
            shares = [[float(row[side]) for side in ("XMin", "YMin", "XMax", "YMax")] for row in rows]
        except (TypeError, ValueError) as error:
            return DataError(f"{url}: image {_stem(uri)!r}: {reason(error)}")
        found = [names.get(row["LabelName"], row["LabelName"]) for row in rows]
        crowds = [row.get("IsGroupOf") == "1" for row in rows]
        return new_image(uri, size_px, found, np.array(shares).reshape(-1, 4) * (size_px * 2), crowds)

    return keep_sound(map(labelled, uris, sizes_of(uris)), on_broken)


def _stem(uri: str) -> str:
    return uri.rpartition("/")[2].rpartition(".")[0]
