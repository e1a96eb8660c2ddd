"""What images are, whatever their annotations say: each is read whole and decoded."""

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
    """One image.

    size_px: width and height as a viewer shows it; orientation: EXIF's, 1 to 8, 1 is upright; sha256: of the file. Of
    one that can't be used: error, why; and is_missing, whether nothing was read at all. Then the rest is empty.
    """

    size_px: tuple[int, int] | None = None
    orientation: int = 1
    sha256: str = ""
    error: str = ""
    is_missing: bool = False

    @property
    def stored_size_px(self) -> tuple[int, int] | None:
        """Width and height as the file has them, before EXIF turns them."""
        if self.size_px is None or self.orientation < 5:
            return self.size_px
        return self.size_px[1], self.size_px[0]


def look_at(uris: Iterable[str]) -> Iterator[tuple[str, ImageFacts]]:
    """Each image once, in order. Files are read ahead by threads; this one decodes."""
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
        stored, orientation = decode_stored(data)
    except DecodeError as error:
        return ImageFacts(sha256=sha256, error=reason(error))
    height_px, width_px = stored.shape[1:]
    return ImageFacts((width_px, height_px) if orientation < 5 else (height_px, width_px), orientation, sha256)
