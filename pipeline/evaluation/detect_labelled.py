"""The detections in labelled images, by the stages of a run."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from model.example import Examples, Truth
from model.package import ModelPackage
from model.postprocess import Detections
from model.preprocess import resize
from pipeline.errors import SsdBatchError
from pipeline.progress import Progress
from pipeline.settings import DetectionSettings
from pipeline.stages.place import place
from pipeline.stages.rows import ERROR, PIXELS, failure
from pipeline.stages.runner import Decoded, Stages, results, started
from pipeline.table.schema import DETECTION

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
DECODED = pa.schema(
    [
        ("uri", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        *((name, pa.string()) for name in ERROR),
        *TRUTH,
    ]
)
"""The columns of an example as the detectors take it, next to its pixels."""
FOUND = pa.schema(
    [
        ("index", pa.int64()),
        *(DECODED.field(name) for name in ("uri", *ERROR)),
        ("detections", pa.list_(DETECTION)),
        *TRUTH,
    ]
)
"""The columns of an example as the detectors return it."""

Pair = tuple[Detections, Truth]


def detect_all(
    package: ModelPackage, examples: Examples, settings: DetectionSettings
) -> tuple[list[Detections], list[Truth]]:
    """Detect in all examples, and show the progress on standard error.

    Args:
        package: the model.
        examples: the labelled images, of any sizes.
        settings: the settings of the detectors.

    Returns:
        The detections in each image, best first, and the labelled objects of each image, in the order of the examples.

    Raises:
        SettingError: there is no room for the detectors.
        SsdBatchError: an image can't be read, decoded or detected, or it kills its process; the message says which image, and why.
    """
    stages = Stages(
        read=_indexes,
        decode=DecodeExamples(examples, package.record.architecture.image_size_px),
        decoded=DECODED,
        package_files=package.to_files(),
        batch_size=settings.batch_size,
        precision=settings.precision,
        constants={},
        schema=FOUND,
    )
    pairs: dict[int, Pair] = {}
    with (
        place(settings),
        started(settings, stages, len(examples)) as runner,
        closing(Progress(len(examples))) as progress,
    ):
        spread = runner.spread(len(examples))
        with closing(results(runner, len(examples), stages, spread)) as all_rows:
            for rows in all_rows:
                pairs |= _to_pairs(rows)
                progress.update(rows.num_rows, 0)
    in_order = [pairs[index] for index in range(len(examples))]
    return [found for found, _ in in_order], [truth for _, truth in in_order]


def _indexes(start: int, stop: int) -> pa.Table:
    return pa.table({"index": pa.array(range(start, stop), pa.int64())})


@dataclass(frozen=True)
class DecodeExamples:
    """The first stage, which turns indexes into examples by column. An example that raises becomes an error."""

    examples: Examples
    """The examples, which can be pickled."""
    image_size_px: int
    """The side of the square image that is returned, in pixels."""

    def __call__(self, rows: pa.Table) -> Iterator[Decoded]:
        """Decode the examples of these rows, as they are asked for."""
        return map(self._image, rows["index"].to_pylist())

    def _image(self, index: int) -> Decoded:
        try:
            example = self.examples[index]
            square = resize(example.image, self.image_size_px).permute(1, 2, 0).contiguous()
        except Exception as error:
            return failure("decode", error)
        width_px, height_px = example.size_px
        image = {"uri": example.uri, "width_px": width_px, "height_px": height_px, PIXELS: square.numpy()}
        return image | {name: getattr(example.truth, name).tolist() for name in TRUTH.names}


def _to_pairs(rows: pa.Table) -> dict[int, Pair]:
    """Return the pair of each row by index; raise SsdBatchError where a row has an error."""
    for row in rows.filter(pc.is_valid(rows["error_stage"])).to_pylist():
        name = row["uri"] or f"image {row['index']}"
        raise SsdBatchError(f"{name} can't be measured: {row['error_message']}")
    truths = (Truth(*fields) for fields in zip(*(_split(rows[name]) for name in TRUTH.names), strict=True))
    return dict(zip(rows["index"].to_pylist(), zip(_found(rows["detections"]), truths, strict=True), strict=True))


def _split(column: pa.ChunkedArray) -> tuple[Tensor, ...]:
    """Turn lists of numbers, or of boxes, into tensors."""
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
