"""The images that may be chosen, with their boxes, as arrays."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.exports.selection import SIDES, Selection


@dataclass(frozen=True, eq=False)
class Candidates:
    """N images with B boxes."""

    uris: pa.Array
    """N strings."""
    sizes_px: NDArray[np.int32]
    """(N, 2) int32 widths and heights."""
    first_boxes: NDArray[np.int64]
    """(N + 1) int64: image i has the boxes from `first_boxes[i]` up to, and without, `first_boxes[i + 1]`."""
    class_names: tuple[str, ...]
    """The names of C classes."""
    classes: NDArray[np.int32]
    """(B,) int32, indexes of `class_names`."""
    scores: NDArray[np.float32]
    """(B,) float32."""
    boxes_xyxy: NDArray[np.float32]
    """(B, 4) float32 pixels, 0-based, right and lower border outside."""

    def boxes_of(self, image: int) -> slice:
        """Return where an image's boxes are."""
        return slice(int(self.first_boxes[image]), int(self.first_boxes[image + 1]))

    def image_of_boxes(self) -> NDArray[np.int64]:
        """Return (B,) int64: the image of each box."""
        return np.repeat(np.arange(len(self.uris)), np.diff(self.first_boxes))


def read_candidates(selection: Selection) -> Candidates:
    """Read all selected images and boxes.

    They take about 100 bytes an image and 25 a box.
    """
    read = pa.Table.from_batches(list(selection.batches()))
    lists = read["detections"].combine_chunks()
    boxes = lists.flatten()
    labels = boxes.field("label").dictionary_encode()
    return Candidates(
        uris=read["uri"].combine_chunks(),
        sizes_px=np.stack([read[side].to_numpy() for side in ("width_px", "height_px")], axis=1).astype(np.int32),
        first_boxes=np.concatenate([[0], np.cumsum(lists.value_lengths().fill_null(0))]),
        class_names=tuple(labels.dictionary.to_pylist()),
        classes=labels.indices.to_numpy().astype(np.int32),
        scores=boxes.field("score").to_numpy().astype(np.float32),
        boxes_xyxy=np.stack([boxes.field(side).to_numpy() for side in SIDES], axis=1).astype(np.float32),
    )
