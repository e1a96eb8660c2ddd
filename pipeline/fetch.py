"""The first stage: URIs to pixels, on CPU tasks. Whatever fails becomes a row that says so."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pyarrow as pa
import torch

from model.preprocess import resize
from pipeline.decode import decode
from pipeline.read import read_version

NUM_FETCH_THREADS = 64
"""Hide a latency of 40 ms behind one decoding core."""

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
"""What this stage adds: either pixels, (S, S, 3) uint8 RGB, or an error."""

MAX_MESSAGE = 500


@cache
def _threads() -> ThreadPoolExecutor:
    torch.set_num_threads(1)
    return ThreadPoolExecutor(NUM_FETCH_THREADS, thread_name_prefix="fetch")


def fetch_and_decode(batch: pa.Table, image_size_px: int, max_pixels: int) -> pa.Table:
    """Read each image's listed version, decode it, resize it.

    Args:
        batch: columns uri, etag, size_bytes, and others, which are kept.
        image_size_px: side of the square that comes out.
        max_pixels: larger pictures are refused.

    Returns:
        The same rows in the same order, with the columns of `PIXELS`.
    """
    columns = (batch[name].to_pylist() for name in ("uri", "etag", "size_bytes"))
    contents = [_threads().submit(read_version, *row) for row in zip(*columns, strict=True)]
    rows = []
    for content in contents:
        try:
            data = content.result()
        except Exception as error:
            rows.append(failure("fetch", error))
            continue
        try:
            rows.append(_pixels(data, image_size_px, max_pixels))
        except Exception as error:
            rows.append(failure("decode", error))
    return add_columns(batch, pa.Table.from_pylist(rows, schema=PIXELS))


def _pixels(data: bytes, image_size_px: int, max_pixels: int) -> dict[str, Any]:
    image = decode(data, max_pixels)
    _, height_px, width_px = image.shape
    pixels = resize(image, image_size_px).permute(1, 2, 0).contiguous().numpy().tobytes()
    return {"width_px": width_px, "height_px": height_px, "pixels": pixels}


def failure(stage: str, error: Exception) -> dict[str, Any]:
    """The columns of a row that failed."""
    return {
        "error_stage": stage,
        "error_type": type(error).__name__,
        "error_message": (str(error).partition("\n\n")[0] or repr(error))[:MAX_MESSAGE],
    }


def add_columns(table: pa.Table, more: pa.Table) -> pa.Table:
    """Both tables' columns side by side."""
    for name in more.column_names:
        table = table.append_column(name, more[name])
    return table
