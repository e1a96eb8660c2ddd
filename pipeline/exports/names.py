"""The names that a data set gives to its images: each one once, on any file system."""

import hashlib
import re
from collections.abc import Iterator
from itertools import count

from pipeline.inputs.listing import is_image

UNSAFE = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
"""The characters that some file system does not allow in a name."""
MAX_BYTES = 180
"""The length of a name, so that a suffix still fits into the 255 bytes of most file systems."""
OTHERWISE = ".jpg"
"""The suffix of an image whose name has none of an image."""
SEPARATOR = "__"
"""The text between the folders of an image's URI in the name of its copy."""


class ImageNames:
    """Names by URI: the path below a common folder, in one name without folders. Names differ in more than their suffixes.

    Args:
        common_folder: the folder that all images are below, with a slash at its end.
    """

    def __init__(self, common_folder: str) -> None:
        self._folder = common_folder
        self._taken: set[str] = set()

    def name(self, uri: str) -> str:
        """Return an image's name, which no other image of another URI gets. Readers take files by their suffix, whatever is in them."""
        path = uri.removeprefix(self._folder)
        if uri.startswith(("http://", "https://")):
            path = re.split("[?#]", path)[0]
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        whole = UNSAFE.sub("_", SEPARATOR.join(parts)) or "image"
        stem, _, suffix = _short(whole if is_image(whole) else f"{whole}{OTHERWISE}").rpartition(".")
        free = next(candidate for candidate in _numbered(stem or "image") if candidate.casefold() not in self._taken)
        self._taken.add(free.casefold())
        return f"{free}.{suffix}"


def stem_of(name: str) -> str:
    """Return a name without its suffix."""
    return name.rpartition(".")[0] or name


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}-{number}" for number in count(2))


def _short(name: str) -> str:
    """Return a name of at most `MAX_BYTES` bytes. A longer one keeps its end, after a hash of the whole."""
    content = name.encode()
    if len(content) <= MAX_BYTES:
        return name
    digest = hashlib.sha256(content).hexdigest()[:12]
    return f"{digest}-{content[-(MAX_BYTES - 13) :].decode(errors='ignore')}"
