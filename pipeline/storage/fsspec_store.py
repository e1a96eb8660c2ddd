"""The store for every URL that fsspec knows."""

import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from pipeline.errors import SettingError, is_outage, reason
from pipeline.redaction import redacted
from pipeline.storage.stored import StoredObject

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

NUM_STAT_THREADS = 32
HTTP_LIBRARIES = ("httpx", "httpx2")
"""The libraries with which optional file systems speak HTTP, such as that of the Hugging Face Hub."""
ARCHIVES = re.compile(r"^(zip|tar|libarchive|rar|7z|asar|squashfs)://|::")
"""A pattern of the URLs of files within an archive."""


@contextmanager
def as_os_error() -> Iterator[None]:
    """Raise OSError where fsspec's file systems raise other errors: for a server that is not there, and for HTTP answers."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError

        if isinstance(error, BotoCoreError | ClientError) or type(error).__module__.partition(".")[0] in HTTP_LIBRARIES:
            raise OSError(reason(error)) from error
        raise


class FsspecStore:
    """The operations that any store has, on absolute URLs. The stores of this machine and of S3 do some of them better.

    All operations raise OSError if the store fails.
    """

    def filesystem(self, url: str) -> tuple[Any, str]:
        """Return the fsspec file system of a URL, and the path in it.

        Raises:
            SettingError: fsspec knows no such scheme, or lacks the package for it.
        """
        try:
            fs, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise SettingError(f"{url!r} can't be reached: {error}") from error
        return fs, path

    @as_os_error()
    def read(self, url: str) -> bytes:
        """Return a whole small file."""
        fs, path = self.filesystem(url)
        return bytes(fs.cat_file(path))

    @as_os_error()
    def write(self, url: str, data: bytes) -> None:
        """Write a whole small file. Make its folder if there is none."""
        fs, path = self._writable(url)
        fs.pipe_file(path, data)

    @as_os_error()
    def create(self, url: str, data: bytes) -> None:
        """Write a file that does not exist yet. Two writers that create it at once may both believe that they did.

        Raises:
            FileExistsError: the file exists.
        """
        fs, path = self._writable(url)
        if fs.exists(path):
            raise FileExistsError(f"{url} is there already")
        fs.pipe_file(path, data)

    @as_os_error()
    def put(self, local: Path, url: str) -> None:
        """Copy a file of this machine, of any size, to a URL."""
        fs, path = self._writable(url)
        fs.put_file(str(local), path)

    @as_os_error()
    def delete(self, url: str) -> None:
        """Delete one file."""
        fs, path = self.filesystem(url)
        fs.rm_file(path)

    @as_os_error()
    def exists(self, url: str) -> bool:
        """Is there a file, or a folder with something in it?"""
        fs, path = self.filesystem(url)
        return bool(fs.exists(path))

    @as_os_error()
    def names(self, url: str) -> set[str]:
        """Return the names in a folder."""
        fs, path = self.filesystem(url)
        return {entry["name"].rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=True)}

    def _writable(self, url: str) -> tuple[Any, str]:
        """Return a URL's file system and path, after making the folder above it."""
        fs, path = self.filesystem(url)
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return fs, path

    def walk(self, url: str) -> Iterator[list[StoredObject]]:
        """Yield all files below a folder or prefix, or the one file, page by page in no set order.

        Raises:
            FileNotFoundError, PermissionError: there is no such folder or bucket, or it may not be listed.
            SettingError: the URL names files within an archive.
        """
        if ARCHIVES.search(url):
            raise SettingError(
                f"{redacted(url)!r}: files within an archive are not read; unpack it, and name the folder"
            )
        return self._walk(url)

    def walk_columns(self, url: str) -> Iterator["pa.Table"]:
        """Yield the same as tables with the columns of `ENTRIES`."""
        from pipeline.storage.entries import to_table  # pyarrow, which only listings need

        return map(to_table, self.walk(url))

    def _walk(self, url: str) -> Iterator[list[StoredObject]]:
        fs, path = self.filesystem(url)
        with as_os_error():
            found = fs.find(path, detail=True)
        if not found:
            if _is_http(url):
                _raise_outage(fs, path)
            raise FileNotFoundError(f"{url}: nothing is there")
        if list(found.values()) == [{}]:  # HTTP's answer for one file
            entries = [self.stat(url)]
        elif _is_http(url):  # HTTP's listings are links alone
            with ThreadPoolExecutor(NUM_STAT_THREADS) as threads:
                answers = list(threads.map(self._stat_if_there, found))
            entries = [entry for entry in answers if entry]
            if not entries:
                raise FileNotFoundError(f"{url}: none of its {len(found):,} links can be read")
            if left_out := len(answers) - len(entries):
                logger.warning("%s: %s links are left out, as they can't be read", redacted(url), f"{left_out:,}")
        else:
            # fsspec's paths have lost the host, or the scheme alone.
            above = url.rstrip("/").removesuffix(path.rstrip("/"))
            entries = [_to_stored(fs, above + name, info) for name, info in found.items()]
        if unknown := sum(not entry.etag for entry in entries):
            logger.warning(
                "%s: %s files have neither an ETag nor a time; when they change it is not noticed",
                redacted(url),
                f"{unknown:,}",
            )
        yield entries

    @as_os_error()
    def stat(self, url: str) -> StoredObject:
        """Return the entry of one file.

        Raises:
            OSError: the file does not exist, or may not be read.
        """
        fs, path = self.filesystem(url)
        return _to_stored(fs, url, fs.info(path))

    def _stat_if_there(self, url: str) -> StoredObject | None:
        """Return the entry of a link; None if it leads nowhere, or may not be read."""
        try:
            return self.stat(url)
        except (FileNotFoundError, PermissionError) as error:
            if is_outage(error):  # fsspec takes any answer for a file that is not there
                raise
            return None

    def check_creates_once(self, url: str) -> None:
        """Check that if two writers create one file below a folder, one of them fails. Disks are assumed to ensure that.

        Raises:
            SettingError: the store lets both succeed.
        """

    def table_options(self, url: str) -> dict[str, str]:
        """Return the options with which delta-rs opens a table. If they differ from earlier ones, credentials were renewed."""
        return {}

    def table_patience_s(self) -> float:
        """Return the seconds for which delta-rs may repeat a request to a table's store."""
        return 0


@as_os_error()
def _raise_outage(fs: Any, path: str) -> None:
    """Raise an error if a server does not answer. fsspec treats that as a file that does not exist."""
    try:
        fs.info(path)
    except FileNotFoundError as error:
        if error.__cause__ and is_outage(error):
            raise error.__cause__ from None


def _to_stored(fs: Any, uri: str, info: dict[str, Any]) -> StoredObject:
    """Return the entry of a file. Its etag is made of the facts that the store reports, and empty if none of them ever changes."""
    modified = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(modified, (int, float)):
        modified = datetime.fromtimestamp(modified, UTC)
    if _is_http(uri) and (last_modified := info.get("Last-Modified")):
        modified = parsedate_to_datetime(last_modified)
    etag = info.get("ETag") or info.get("etag")
    if not etag and not _is_http(uri):
        etag = fs.ukey(info["name"])
    elif not etag:
        etag = f"{modified:%Y%m%dT%H%M%SZ}-{info['size']}" if modified else ""
    return StoredObject(uri, str(etag).strip('"'), info["size"], modified if isinstance(modified, datetime) else None)


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))
