"""List the images of a run: folders, prefixes, globs and manifests, written to one Parquet file."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from pipeline.errors import SettingError, reason
from pipeline.inputs.inventory import find_inventory
from pipeline.inputs.manifest import LISTING, is_manifest, read_manifest
from pipeline.redaction import redacted
from pipeline.sql import bounded, literal
from pipeline.storage import store
from pipeline.storage.stored import PAGE
from pipeline.storage.table_files import DATA_FILE, LOG_FOLDER, WORK_FOLDER
from pipeline.urls import absolute

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
)  # fmt: skip
GLOB = re.compile(r"[*?\[]")

IMAGE = f"(?i)({'|'.join(map(re.escape, IMAGE_SUFFIXES))})$"
"""A pattern of the names of images. This one and the next three are in the syntax of RE2, which Arrow uses."""
NOT_READ = r"(?i)\.(hei[cf]|dng|cr[23]|nef|arw|raf|orf|rw2|psd|jp2|jxl)$"
CONVERT = "pictures of this kind can't be read; convert them to JPEG"
HIDDEN = r"/(\.([^/.]|\.([^/]|$))|(@eaDir|@Recycle|#recycle|#snapshot|__MACOSX|\$RECYCLE\.BIN|System Volume Information|lost\+found)/)"
"""A pattern of the files that systems and tools keep among people's files.

Their names begin with a dot, or they are in folders with thumbnails or deleted files.
"""
OF_A_TABLE = rf"/({LOG_FOLDER}|{WORK_FOLDER})/|/{DATA_FILE}$"
"""A pattern of the files of a table of results, which may be stored among the images."""
ROW_GROUP_ROWS = 131_072


def is_image(name: str) -> bool:
    """Does a file have the suffix of an image?"""
    return name.lower().endswith(IMAGE_SUFFIXES)


def list_inputs(
    inputs: Collection[str],
    all_files: bool,
    path: Path,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Write the listing of all inputs, page by page. Each key (uri, etag) is in it once.

    Args:
        inputs: folders, globs, prefixes, single images or manifests, by path or URL.
        all_files: also take files whose suffix is no image's.
        path: the Parquet file to write, with the columns of `LISTING`.
        since, until: take only images modified from `since` on and before `until`, or at an unknown time.

    Returns:
        The number of names that were skipped: those with another suffix, hidden files, files of a table, and what can't be used.

    Raises:
        SettingError: an input does not exist, may not be read, is no manifest, or all of them are empty.
    """
    num_listed = num_skipped = 0
    with pq.ParquetWriter(path, LISTING) as writer:
        for given in inputs:
            try:
                waiting = LISTING.empty_table()
                for page, num_others in _pages(absolute(given), all_files):
                    num_skipped += num_others
                    num_listed += page.num_rows
                    in_time = page.filter(_is_between(page["last_modified"], since, until))
                    waiting = pa.concat_tables([waiting, in_time])
                    if waiting.num_rows > ROW_GROUP_ROWS - PAGE:
                        writer.write_table(waiting, ROW_GROUP_ROWS)
                        waiting = LISTING.empty_table()
                writer.write_table(waiting, ROW_GROUP_ROWS)
            except (OSError, pa.ArrowException, ValueError) as error:
                raise SettingError(f"input {given!r} can't be listed: {reason(error)}") from error
    if not num_listed:
        skipped = (
            f"; {num_skipped} other files are there (--all-files takes those with any suffix)" if num_skipped else ""
        )
        raise SettingError(f"input {', '.join(map(repr, inputs))}: no images{skipped}")
    if len(inputs) > 1 or any(map(is_manifest, inputs)):
        _drop_repeated(path)
    return num_skipped


def take_between(listed: Path, since: datetime | None, until: datetime | None, path: Path) -> None:
    """Write the rows of a listing that were modified in a period, or at an unknown time.

    Args:
        listed: the Parquet file of the listing.
        since, until: the period, from `since` on and before `until`; None leaves it open.
        path: the Parquet file to write.
    """
    bounds = ((since, ">="), (until, "<"))
    in_time = [f"last_modified {sign} TIMESTAMPTZ {literal(bound.isoformat())}" for bound, sign in bounds if bound]
    source = f"FROM read_parquet({literal(str(listed))}) WHERE coalesce({' AND '.join(in_time) or 'true'}, true)"
    with bounded() as db:
        db.execute(f"COPY ({source}) TO {literal(str(path))} (FORMAT parquet)")


def take_sample(path: Path, num_images: int) -> None:
    """Keep only this many images of a listing, chosen by a hash of their names.

    They are the same ones whenever, and for whatever model, the images are listed.
    """
    sampled = path.with_name(f"sampled-{path.name}")
    with bounded() as db:
        chosen = f"FROM read_parquet({literal(str(path))}) ORDER BY md5(uri), uri, etag LIMIT {num_images}"
        db.execute(f"COPY ({chosen}) TO {literal(str(sampled))} (FORMAT parquet)")
    sampled.replace(path)


def _pages(url: str, all_files: bool) -> Iterator[tuple[pa.Table, int]]:
    """Yield images with the columns of `LISTING`, and the number of other names among them."""
    if is_manifest(url):
        inventory = find_inventory(url)
        if inventory is None:
            yield from ((rows, 0) for rows in read_manifest(url))
            return
        root, pages = f"s3://{inventory.bucket}", inventory.pages()
    else:
        root, pages = _walk(url)
    unusable: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for page in pages:
        is_usable = pc.equal(page["unusable"], "")
        for entry in page.filter(pc.invert(is_usable)).to_pylist():
            unusable[entry["unusable"]] += 1
            examples.setdefault(entry["unusable"], entry["uri"])
        if not all_files and (not_read := page.filter(pc.and_(is_usable, _is_not_read(page["uri"], root)))).num_rows:
            unusable[CONVERT] += not_read.num_rows
            examples.setdefault(CONVERT, not_read["uri"][0].as_py())
        taken = page.filter(pc.and_(is_usable, _is_taken(page["uri"], root, all_files)))
        yield taken.select(LISTING.names), page.num_rows - taken.num_rows
    for why, count in unusable.items():
        logger.warning(
            "%s of %s are not part of this run, such as %r: %s", f"{count:,}", redacted(url), examples[why], why
        )


def _is_taken(uris: pa.ChunkedArray, root: str, all_files: bool) -> pa.ChunkedArray:
    names = pc.utf8_slice_codeunits(uris, len(root.rstrip("/")))
    is_taken = pc.match_substring_regex(uris, IMAGE)
    if all_files:
        is_taken = pc.or_(is_taken, pc.invert(pc.match_substring_regex(uris, OF_A_TABLE)))
    return pc.and_not(is_taken, pc.match_substring_regex(names, HIDDEN))


def _is_not_read(uris: pa.ChunkedArray, root: str) -> pa.ChunkedArray:
    names = pc.utf8_slice_codeunits(uris, len(root.rstrip("/")))
    return pc.and_not(pc.match_substring_regex(uris, NOT_READ), pc.match_substring_regex(names, HIDDEN))


def _is_between(times: pa.ChunkedArray, since: datetime | None, until: datetime | None) -> pa.ChunkedArray:
    is_taken = pc.is_valid(times)
    for bound, compare in ((since, pc.greater_equal), (until, pc.less)):
        if bound:
            is_taken = pc.and_(is_taken, pc.fill_null(compare(times, pa.scalar(bound, times.type)), False))
    return pc.or_(is_taken, pc.is_null(times))


def _drop_repeated(path: Path) -> None:
    """Keep one row per key. The file is written anew only if a key has several rows."""
    listing = f"read_parquet({literal(str(path))})"
    with bounded() as db:
        # Hashes take a quarter of the keys' memory; if two keys share one, the file is written for nothing.
        if db.execute(f"SELECT count(*) = count(DISTINCT hash(uri, etag)) FROM {listing}").fetchall()[0][0]:
            return
        distinct = path.with_name(f"distinct-{path.name}")
        db.execute(
            f"COPY (SELECT DISTINCT ON (uri, etag) * FROM {listing}) TO {literal(str(distinct))} (FORMAT parquet)"
        )
    distinct.replace(path)


def _walk(url: str) -> tuple[str, Iterator[pa.Table]]:
    """Return the folder or prefix that is walked, and the pages of its entries. For one file, the folder is the file's own URL."""
    if not GLOB.search(url) or _is_there(url):
        return url, store.walk_columns(url)
    folder = url[: GLOB.search(url).start()].rpartition("/")[0]  # type: ignore[union-attr]
    matches = re.compile(glob_translate(url)).match
    return folder, (_matching(page, matches) for page in store.walk_columns(f"{folder}/"))


def _matching(page: pa.Table, matches: Callable[[str], object]) -> pa.Table:
    """Return the entries whose URI matches, and those that can't be used. Globs need more than RE2 has."""
    is_match = pa.array([bool(matches(uri)) for uri in page["uri"].to_pylist()], pa.bool_())
    return page.filter(pc.or_(pc.not_equal(page["unusable"], ""), is_match))


def _is_there(url: str) -> bool:
    """Does a file or folder have exactly this name, special characters included?"""
    try:
        return any(store.walk(url))
    except OSError:
        return False
