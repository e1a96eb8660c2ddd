"""Detect as with plain torch: per core a process with a DataLoader, a model and a Parquet file.

python -m tests.benchmarks.peer_loader FOLDER MODEL OUTPUT
"""

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor, multiprocessing
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image

from tests.benchmarks.torchvision_detector import TorchvisionDetector

BATCH_SIZE = 8


class Images(Dataset[tuple[str, Tensor]]):
    """The images of files."""

    def __init__(self, files: list[str]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        return self._files[index], decode_image(self._files[index], mode=ImageReadMode.RGB)


def detect(rank: int, files: list[str], model: str, output: str) -> None:
    """Detect in every so many files, beginning with number `rank`."""
    detector, parts = TorchvisionDetector(model), []
    own = files[rank :: len(os.sched_getaffinity(0))]
    loader = DataLoader(Images(own), BATCH_SIZE, num_workers=1, collate_fn=list, multiprocessing_context="fork")
    for batch in loader:
        parts.append(pa.table({"uri": [uri for uri, _ in batch]} | detector([image for _, image in batch])))
    pq.write_table(pa.concat_tables(parts), f"{output}/{rank}.parquet")


def main(folder: str, model: str, output: str) -> None:
    Path(output).mkdir()
    files = sorted(str(file) for file in Path(folder).iterdir())
    multiprocessing.spawn(detect, (files, model, output), nprocs=len(os.sched_getaffinity(0)))  # type: ignore[attr-defined,no-untyped-call]


if __name__ == "__main__":
    main(*sys.argv[1:4])
