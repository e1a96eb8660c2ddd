"""Detect as Daft's own pages do: from_glob_path, download, decode_image, a class with a batch method, then write_parquet.

python -m tests.benchmarks.peer_daft FOLDER MODEL OUTPUT, in a Python that has daft
"""

import os
import sys
from typing import Any

import daft
import torch
from daft import DataType, ImageMode, Series, col

from tests.benchmarks.torchvision_detector import TorchvisionDetector

BATCH_SIZE = 8
FIELDS = {
    "boxes": DataType.list(DataType.list(DataType.float32())),
    "labels": DataType.list(DataType.int64()),
    "scores": DataType.list(DataType.float32()),
    "pid": DataType.int64(),
    "done_s": DataType.float64(),
}


@daft.cls(max_concurrency=len(os.sched_getaffinity(0)), use_process=True)
class Detect:
    """A process with a model."""

    def __init__(self, model: str) -> None:
        self._detector = TorchvisionDetector(model)

    @daft.method.batch(return_dtype=DataType.struct(FIELDS), batch_size=BATCH_SIZE)
    def detect(self, images: Series) -> list[dict[str, Any]]:
        """Detect in a batch."""
        found = self._detector([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images.to_pylist()])
        return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def main(folder: str, model: str, output: str) -> None:
    images = daft.from_glob_path(f"{folder}/*").select("path")
    images = images.with_column("image", col("path").download().decode_image(mode=ImageMode.RGB))
    found = images.with_column("found", Detect(model).detect(col("image")))
    found.select("path", *(col("found")[name].alias(name) for name in FIELDS)).write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:4])
