"""The first stage, from URIs to pixels. A failure becomes a row that holds its error."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial

import pyarrow as pa
import torch

from model.preprocess import resize
from pipeline.images.decode import DecodeError, decode_stored, turn
from pipeline.images.read import NUM_REQUESTS, Content, read_version
from pipeline.stages.rows import PIXELS, failure
from pipeline.stages.runner import Decoded

NUM_FETCH_THREADS = NUM_REQUESTS

MAX_BYTES_IN_FLIGHT = 128 << 20
"""The most bytes that are read ahead of the decoder: of one block, and again of the block that follows it. A larger file is read alone."""

UNKNOWN_SIZE_BYTES = MAX_BYTES_IN_FLIGHT // NUM_FETCH_THREADS
"""The bytes that a file of unknown size is counted as."""

MAX_BYTES_PER_PIXEL, MAX_OTHER_BYTES = 8, 64 << 20
"""The most bytes that a picture needs. The first is per pixel, of 16-bit RGBA without compression. The second is for the rest of the file,
such as a phone's film."""


class TooLargeError(OSError):
    """The file is larger than any picture of `max_pixels`."""


@cache
def _threads() -> ThreadPoolExecutor:
    torch.set_num_threads(1)
    return ThreadPoolExecutor(NUM_FETCH_THREADS, thread_name_prefix="fetch")


def fetch_and_decode(
    rows: pa.Table, image_size_px: int, max_pixels: int, min_side_px: int | None = None
) -> Iterator[Decoded]:
    """Read each image's listed version, decode it, and resize it.

    Reading begins with the call, as far ahead as `MAX_BYTES_IN_FLIGHT` allows. Each image is decoded when it is asked for.

    Args:
        rows: the columns uri, etag and size_bytes, and others, which are ignored.
        image_size_px: the side of the square that comes out.
        max_pixels: the most pixels of a picture. Larger pictures are refused, and so are files too large for this many pixels.
        min_side_px: the fewest pixels per side to which a JPEG may be decoded; see `pipeline.images.decode.decode_stored`.

    Returns:
        An iterator over the rows in order: the columns of `pipeline.stages.rows.DECODED` and the pixels, or an error. The error's stage is
        decode if the bytes are at fault, and always will be. The stage is fetch if the error may pass: the storage's errors, and too
        little memory.
    """
    columns = (rows[name].to_pylist() for name in ("uri", "etag", "size_bytes"))
    contents = ReadAhead(zip(*columns, strict=True), MAX_BYTES_PER_PIXEL * max_pixels + MAX_OTHER_BYTES)
    # map keeps no reference, so each content is freed when it is decoded.
    decode = partial(_pixels, image_size_px=image_size_px, max_pixels=max_pixels, min_side_px=min_side_px)
    return map(partial(_row, decode=decode), contents)


class ReadAhead(Iterator[Future[Content]]):
    """Reads objects in their order, as many at once as `MAX_BYTES_IN_FLIGHT` allows. Reading begins when the instance is made.

    Args:
        objects: the uri, etag and size_bytes of each object.
        max_bytes: the most bytes of a file. Larger files are refused.
    """

    def __init__(self, objects: Iterable[tuple[str, str, int | None]], max_bytes: int) -> None:
        self._waiting, self._max_bytes = deque(objects), max_bytes
        self._under_way: deque[tuple[Future[Content], int]] = deque()
        self._bytes_under_way = 0
        self._read_on()

    def __next__(self) -> Future[Content]:
        self._read_on()
        if not self._under_way:
            raise StopIteration
        content, num_bytes = self._under_way.popleft()
        self._bytes_under_way -= num_bytes
        return content

    def _read_on(self) -> None:
        while self._waiting and len(self._under_way) < NUM_FETCH_THREADS:
            uri, etag, size_bytes = self._waiting[0]
            num_bytes = UNKNOWN_SIZE_BYTES if size_bytes is None else size_bytes
            if self._under_way and self._bytes_under_way + num_bytes > MAX_BYTES_IN_FLIGHT:
                return
            self._waiting.popleft()
            self._under_way.append((_threads().submit(_read, uri, etag, size_bytes, self._max_bytes), num_bytes))
            self._bytes_under_way += num_bytes


def _read(uri: str, etag: str, size_bytes: int | None, max_bytes: int) -> Content:
    _check_size(size_bytes or 0, max_bytes)
    content = read_version(uri, etag, size_bytes)
    _check_size(len(content.data), max_bytes)
    return content


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise TooLargeError(f"the file has {num_bytes:,} bytes; no picture within max_pixels has over {max_bytes:,}")


def _row(content: Future[Content], decode: Callable[[bytes], Decoded]) -> Decoded:
    began_s = time.perf_counter()
    error = content.exception()  # This waits until the content is there.
    fetched_s = time.perf_counter()
    if error is not None:
        return failure("fetch", error) | {".fetch_s": fetched_s - began_s}
    data, num_retries = content.result()
    row = _decoded(data, decode)
    times = {".fetch_s": fetched_s - began_s, ".decode_s": time.perf_counter() - fetched_s}
    return row | times | {".bytes_read": len(data), ".num_retries": num_retries}


def _decoded(data: bytes, decode: Callable[[bytes], Decoded]) -> Decoded:
    try:
        return decode(data)
    except DecodeError as error:
        return failure("decode", error)
    except Exception as error:
        return failure("fetch", error)


def _pixels(data: bytes, image_size_px: int, max_pixels: int, min_side_px: int | None) -> Decoded:
    stored = decode_stored(data, max_pixels, min_side_px)
    width_px, height_px = stored.size_px
    square = turn(resize(stored.pixels, image_size_px), stored.orientation)
    pixels = square.permute(1, 2, 0).contiguous().numpy()
    return {"width_px": width_px, "height_px": height_px, PIXELS: pixels}
