"""The first stage: URIs to pixels, on CPU tasks. Whatever fails becomes a row that says so."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import pyarrow as pa
import torch

from model.preprocess import resize
from pipeline.decode import DecodeError, decode_stored, turn
from pipeline.errors import reason
from pipeline.meters import READ_METERS
from pipeline.read import NUM_REQUESTS, Content, read_version

NUM_FETCH_THREADS = NUM_REQUESTS

MAX_BYTES_IN_FLIGHT = 256 << 20
"""Read ahead of the decoder, by one task; a single larger file is read alone."""

UNKNOWN_SIZE_BYTES = MAX_BYTES_IN_FLIGHT // NUM_FETCH_THREADS
"""What a file of unknown size counts for."""

MAX_BYTES_PER_PIXEL, MAX_OTHER_BYTES = 8, 64 << 20
"""No picture needs more: 16-bit RGBA without compression, and what else is in its file (a phone's film, say)."""

PIXELS = pa.schema(
    [
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("error_stage", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
        ("pixels", pa.large_binary()),
    ]
)
"""What this stage adds: either pixels, (S, S, 3) uint8 RGB, or an error; and what it took, `READ_METERS`."""


class TooLargeError(OSError):
    """The file is larger than any picture of `max_pixels`."""


@cache
def _threads() -> ThreadPoolExecutor:
    torch.set_num_threads(1)
    return ThreadPoolExecutor(NUM_FETCH_THREADS, thread_name_prefix="fetch")


def fetch_and_decode(batch: pa.Table, image_size_px: int, max_pixels: int) -> pa.Table:
    """Read each image's listed version, decode it, resize it.

    Args:
        batch: columns uri, etag, size_bytes, and others, which are kept.
        image_size_px: side of the square that comes out.
        max_pixels: larger pictures are refused, and so are files too large for that many.

    Returns:
        The same rows in the same order, with the columns of `PIXELS` and `READ_METERS`. The error's stage is decode where the bytes are
        at fault, and always will be; fetch where it may pass: the storage's errors, and too little memory.
    """
    columns = (batch[name].to_pylist() for name in ("uri", "etag", "size_bytes"))
    contents = _read_ahead(zip(*columns, strict=True), MAX_BYTES_PER_PIXEL * max_pixels + MAX_OTHER_BYTES)
    # map keeps no reference, so each content is freed when it is decoded.
    rows = list(map(partial(_row, image_size_px=image_size_px, max_pixels=max_pixels), contents))
    return add_columns(batch, pa.Table.from_pylist(rows, schema=pa.schema([*PIXELS, *READ_METERS])))


def _read_ahead(objects: Iterable[tuple[str, str, int | None]], max_bytes: int) -> Iterator[Future[Content]]:
    """Read objects (uri, etag, size_bytes) in their order, as many at once as `MAX_BYTES_IN_FLIGHT` allows."""
    under_way: deque[tuple[Future[Content], int]] = deque()
    for uri, etag, size_bytes in objects:
        expected_bytes = UNKNOWN_SIZE_BYTES if size_bytes is None else size_bytes
        while under_way and sum(num_bytes for _, num_bytes in under_way) + expected_bytes > MAX_BYTES_IN_FLIGHT:
            yield under_way.popleft()[0]
        under_way.append((_threads().submit(_read, uri, etag, size_bytes, max_bytes), expected_bytes))
    while under_way:
        yield under_way.popleft()[0]


def _read(uri: str, etag: str, size_bytes: int | None, max_bytes: int) -> Content:
    _check_size(size_bytes or 0, max_bytes)
    content = read_version(uri, etag, size_bytes)
    _check_size(len(content.data), max_bytes)
    return content


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise TooLargeError(f"the file has {num_bytes:,} bytes; no picture within max_pixels has over {max_bytes:,}")


def _row(content: Future[Content], image_size_px: int, max_pixels: int) -> dict[str, Any]:
    began_s = time.perf_counter()
    error = content.exception()  # when it is there
    fetched_s = time.perf_counter()
    if error is not None:
        return failure("fetch", error) | {"fetch_s": fetched_s - began_s}
    data, num_retries = content.result()
    row = _decoded(data, image_size_px, max_pixels)
    times = {"fetch_s": fetched_s - began_s, "decode_s": time.perf_counter() - fetched_s}
    return row | times | {"bytes_read": len(data), "num_retries": num_retries}


def _decoded(data: bytes, image_size_px: int, max_pixels: int) -> dict[str, Any]:
    try:
        return _pixels(data, image_size_px, max_pixels)
    except DecodeError as error:
        return failure("decode", error)
    except Exception as error:
        return failure("fetch", error)


def _pixels(data: bytes, image_size_px: int, max_pixels: int) -> dict[str, Any]:
    stored, orientation = decode_stored(data, max_pixels)
    _, height_px, width_px = stored.shape
    if orientation >= 5:
        height_px, width_px = width_px, height_px
    square = turn(resize(stored, image_size_px), orientation)
    pixels = square.permute(1, 2, 0).contiguous().numpy().tobytes()
    return {"width_px": width_px, "height_px": height_px, "pixels": pixels}


def failure(stage: str, error: BaseException) -> dict[str, Any]:
    """The columns of a row that failed."""
    return {"error_stage": stage, "error_type": type(error).__name__, "error_message": reason(error)}


def add_columns(table: pa.Table, more: pa.Table) -> pa.Table:
    """Both tables' columns side by side."""
    for name in more.column_names:
        table = table.append_column(name, more[name])
    return table
