"""Detections in labelled images: read and decoded by tasks of the cluster, found by the detectors of a run."""

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from ray.data import Dataset
from torch import Tensor

from model.example import Examples, Truth
from model.package import ModelPackage
from model.postprocess import Detections
from model.preprocess import resize
from pipeline.capacity import wait_until_they_fit
from pipeline.cluster import cluster
from pipeline.errors import SsdBatchError
from pipeline.fetch import PIXELS, failure
from pipeline.missing import Alone, run_alone
from pipeline.progress import Progress
from pipeline.settings import DetectionSettings
from pipeline.stream import in_blocks, make_stages, spread_over_cluster
from pipeline.table import DETECTION

TRUTH = pa.schema(
    [
        ("boxes_xyxy", pa.list_(pa.list_(pa.float32(), 4))),
        ("labels", pa.list_(pa.int64())),
        ("is_difficult", pa.list_(pa.bool_())),
        ("is_crowd", pa.list_(pa.bool_())),
        ("areas", pa.list_(pa.float32())),
    ]
)
"""The fields of a `Truth`, in their order."""
DECODED = pa.schema([("index", pa.int64()), ("uri", pa.string()), *PIXELS, *TRUTH])
"""An example as the detectors take it."""
ERROR = ("error_stage", "error_type", "error_message")
FOUND = pa.schema(
    [*(DECODED.field(name) for name in ("index", "uri", *ERROR)), ("detections", pa.list_(DETECTION)), *TRUTH]
)
"""An example as it comes back."""

Pair = tuple[Detections, Truth]


def detect_all(
    package: ModelPackage, examples: Examples, settings: DetectionSettings
) -> tuple[list[Detections], list[Truth]]:
    """Detect in all examples, showing how it goes on standard error.

    Args:
        package: the model.
        examples: labelled images, of any sizes.
        settings: how the cluster does it.

    Returns:
        What was found in each image, best first, and what stands in it, in the order of the examples.

    Raises:
        SettingError: the cluster is too small.
        SsdBatchError: an image can't be read, decoded or detected, or it kills its process: which one, and why.
    """
    with cluster(settings.address), closing(Progress(len(examples))) as progress:
        wait_until_they_fit(settings)
        pairs: dict[int, Pair] = {}
        with closing(_rows(package, examples, settings)) as all_rows:
            for rows in all_rows:
                pairs |= _to_pairs(rows)
                progress.update(rows.num_rows, 0)
    if len(pairs) != len(examples):
        raise SsdBatchError(f"{len(examples) - len(pairs):,} of {len(examples):,} images did not come back; run again")
    in_order = [pairs[index] for index in range(len(examples))]
    return [found for found, _ in in_order], [truth for _, truth in in_order]


def _rows(package: ModelPackage, examples: Examples, settings: DetectionSettings) -> Generator[pa.Table, None, None]:
    """`FOUND` of all examples, in no set order: in blocks first, then what was lost with a process alone."""
    spread = spread_over_cluster(len(examples), settings)
    decode = partial(
        decode_examples, examples=[ray.put(examples)], image_size_px=package.record.architecture.image_size_px
    )
    stages = make_stages(decode, package, settings.batch_size, {}, FOUND)
    missing = set(range(len(examples)))
    for rows in in_blocks(partial(_indexes, len(examples)), spread, stages):
        missing -= set(rows["index"].to_pylist())
        yield rows
    lost = (_index_rows(index, index + 1) for index in sorted(missing))
    yield from run_alone(lost, Alone(*stages), spread.min_detectors, spread.max_lost)


def _indexes(num_examples: int, block_rows: int) -> Dataset:
    starts = range(0, num_examples, block_rows)
    return ray.data.from_arrow([_index_rows(start, min(start + block_rows, num_examples)) for start in starts])


def _index_rows(start: int, end: int) -> pa.Table:
    return pa.table({"index": range(start, end)})


def decode_examples(indexes: pa.Table, examples: "list[ray.ObjectRef[Examples]]", image_size_px: int) -> pa.Table:
    """The first stage: indexes to rows of `DECODED`; an example that raises becomes a row that says so.

    Args:
        indexes: column index.
        examples: a reference to them, in a list, so that it travels and not what it stands for.
        image_size_px: side of the square that comes out.
    """
    torch.set_num_threads(1)
    held = ray.get(examples[0])
    rows = [{"index": index} | _row(held, index, image_size_px) for index in indexes["index"].to_pylist()]
    return pa.Table.from_pylist(rows, schema=DECODED)


def _row(examples: Examples, index: int, image_size_px: int) -> dict[str, Any]:
    try:
        example = examples[index]
        square = resize(example.image, image_size_px).permute(1, 2, 0).contiguous()
    except Exception as error:
        return failure("decode", error)
    _, height_px, width_px = example.image.shape
    image = {"uri": example.uri, "width_px": width_px, "height_px": height_px, "pixels": square.numpy().tobytes()}
    return image | {name: getattr(example.truth, name).tolist() for name in TRUTH.names}


def _to_pairs(rows: pa.Table) -> dict[int, Pair]:
    """By index; raises SsdBatchError where one has an error."""
    for row in rows.filter(pc.is_valid(rows["error_stage"])).to_pylist():
        name = row["uri"] or f"image {row['index']}"
        raise SsdBatchError(f"{name} can't be measured: {row['error_message']}")
    truths = (Truth(*fields) for fields in zip(*(_split(rows[name]) for name in TRUTH.names), strict=True))
    return dict(zip(rows["index"].to_pylist(), zip(_found(rows["detections"]), truths, strict=True), strict=True))


def _split(column: pa.ChunkedArray) -> tuple[Tensor, ...]:
    """Lists of numbers, or of boxes, to tensors."""
    lists = column.combine_chunks()
    numbers = torch.tensor(pc.list_flatten(lists, recursive=True).to_numpy(zero_copy_only=False))
    if pa.types.is_fixed_size_list(lists.type.value_type):
        numbers = numbers.view(-1, 4)
    return torch.split(numbers, pc.list_value_length(lists).to_pylist())


def _found(column: pa.ChunkedArray) -> Iterator[Detections]:
    lists = column.combine_chunks()
    flat, counts = lists.flatten(), pc.list_value_length(lists).to_pylist()
    boxes = np.stack([flat.field(side) for side in ("xmin", "ymin", "xmax", "ymax")], axis=1)
    scores, labels = np.array(flat.field("score")), np.array(flat.field("label_id"), np.int64)
    return map(Detections, *(torch.split(torch.from_numpy(values), counts) for values in (boxes, scores, labels)))
