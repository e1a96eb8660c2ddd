"""Detect as a user would without us: one process, torch and torchvision, a loop; detections into one Parquet file.

python -m tests.benchmarks.plain_loop FOLDER MODEL OUTPUT
"""

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torchvision.io import ImageReadMode, decode_image

from model.detector import Detector
from model.package import ModelPackage
from model.package_files import RECORD_FILE, WEIGHTS_FILE
from model.preprocess import resize

BATCH_SIZE = 8


def main(folder: Path, model: Path, output: Path) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    package = ModelPackage.from_files({name: (model / name).read_bytes() for name in (RECORD_FILE, WEIGHTS_FILE)})
    detector = Detector(package, torch.device("cpu"))
    files, rows = sorted(folder.iterdir()), []
    for start in range(0, len(files), BATCH_SIZE):
        batch = files[start : start + BATCH_SIZE]
        images = [decode_image(str(file), mode=ImageReadMode.RGB) for file in batch]
        sizes_px = torch.tensor([[image.shape[2], image.shape[1]] for image in images]).float()
        squares = torch.stack([resize(image, detector.image_size_px) for image in images])
        for file, found in zip(batch, detector(squares, sizes_px), strict=True):
            columns = {name: getattr(found, name).tolist() for name in ("boxes_xyxy", "scores", "labels")}
            rows.append({"uri": str(file), **columns})
    pq.write_table(pa.Table.from_pylist(rows), output)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
