"""The facts about images, whatever their annotations say. Each image is read whole and decoded."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.errors import reason
from pipeline.images.decode import DecodeError, decode_stored
from pipeline.images.read import Content, read_version

NUM_READ_THREADS = 64


@dataclass(frozen=True)
class ImageFacts:
    """The facts about one image. An image that can't be used has an error, and no size."""

    size_px: tuple[int, int] | None = None
    """The width and height as a viewer shows the image; None if it can't be used."""
    orientation: int = 1
    """The EXIF orientation, 1 to 8; 1 is upright."""
    sha256: str = ""
    """The sha256 of the file, in hex; empty if nothing was read."""
    error: str = ""
    """The reason why the image can't be used; empty if it can."""
    is_missing: bool = False
    """True if nothing was read at all."""

    @property
    def stored_size_px(self) -> tuple[int, int] | None:
        """Return the width and height as the file has them, before EXIF turns them."""
        if self.size_px is None or self.orientation < 5:
            return self.size_px
        return self.size_px[1], self.size_px[0]


def look_at(uris: Iterable[str]) -> Iterator[tuple[str, ImageFacts]]:
    """Yield the facts of each image once, in order. Threads read files ahead; the calling thread decodes."""
    for uri, content in _read_ahead(dict.fromkeys(uris)):
        yield uri, _facts(content)


def _read_ahead(uris: Iterable[str]) -> Iterator[tuple[str, Future[Content]]]:
    with ThreadPoolExecutor(NUM_READ_THREADS) as threads:
        under_way: deque[tuple[str, Future[Content]]] = deque()
        for uri in uris:
            under_way.append((uri, threads.submit(read_version, uri, "", None)))
            if len(under_way) > NUM_READ_THREADS:
                yield under_way.popleft()
        while under_way:
            yield under_way.popleft()


def _facts(content: Future[Content]) -> ImageFacts:
    try:
        data = content.result().data
    except Exception as error:  # Whatever the store raises.
        return ImageFacts(error=f"{type(error).__name__}: {reason(error)}", is_missing=True)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        stored = decode_stored(data)
    except DecodeError as error:
        return ImageFacts(sha256=sha256, error=reason(error))
    return ImageFacts(stored.size_px, stored.orientation, sha256)
