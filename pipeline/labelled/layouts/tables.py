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
SPLIT = re.compile(r"(?:^|[-_])(train|validation|val|test)(?=[-_.])", re.IGNORECASE)
"""The split in the name of a file, such as `validation-annotations-bbox.csv` or `train_labels.csv`."""
WITHIN = ("annotations", "labels", "images", "data")
"""The folders in which the files of splits may be."""
DESCRIPTIONS = re.compile(r".*class-descriptions.*\.csv", re.IGNORECASE)

Row = dict[str, str]


def splits(folder: str, names: set[str]) -> dict[str, Source]:
    """Return the splits whose files are in a folder, or in `annotations`, `images`, `data` or `labels` in it: `train_labels.csv`, say."""
    for place in (folder, *(f"{folder}/{name}" for name in WITHIN if name in names)):
        files = {name for name in visible_names(place) if name.lower().endswith(".csv")}
        described = sorted(filter(DESCRIPTIONS.fullmatch, files))
        classes = f"{place}/{described[0]}" if described else ""
        found = {}
        for name in sorted(files):
            if not (named := SPLIT.search(name)):
                continue
            split, url = named[1].lower(), f"{place}/{name}"
            if (header := _header(url)) >= SHARES:
                found[split] = Source(OPEN_IMAGES, partial(_read_shares, folder, split, url, classes))
            elif header >= PIXELS:
                found[split] = Source(LAYOUT, partial(_read_pixels, image_folders(folder, split), [url]))
        if found:
            return found
    return {}


def undivided(folder: str, names: set[str]) -> Source | None:
    """Return the images of a folder with CSV files of boxes in pixels, as Roboflow writes one."""
    files = [f"{folder}/{name}" for name in sorted(names) if name.lower().endswith(".csv")]
    if urls := [url for url in files if _header(url) >= PIXELS]:
        return Source(LAYOUT, partial(_read_pixels, image_folders(folder, UNDIVIDED), urls))
    return None


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


def _read_pixels(folders: Sequence[str], urls: Sequence[str], on_broken: OnBroken) -> list[LabelledImage]:
    by_image: dict[str, list[Row]] = defaultdict(list)
    for url in urls:
        for row in _rows(url):
            by_image[plain_path(row["filename"])].append(row)
    place = Place.of(folders, list(by_image))

    def labelled(name: str, rows: list[Row]) -> LabelledImage | DataError:
        objects = [row for row in rows if row["class"]]  # an image without objects has a row without a class
        try:
            boxes = [[float(row[side]) for side in ("xmin", "ymin", "xmax", "ymax")] for row in objects]
            sides = tuple(int(float(rows[0].get(side) or 0)) for side in ("width", "height"))
        except (TypeError, ValueError) as error:
            return DataError(f"{' '.join(urls)}: image {name!r}: {reason(error)}")
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

    def labelled(uri: str, size_px: tuple[int, int] | DataError | None) -> LabelledImage | DataError:
        rows = by_image[_stem(uri)]
        if isinstance(size_px, DataError):
            return size_px
        if size_px is None:
            return new_image(uri, None, [], [])
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
