"""Read, decode and resize photographs and drop the result: a thread for each core, and nothing else.

python -m tests.benchmarks.bare_decode FOLDER: prints images/s from the first file to the last, so that imports do not count.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torchvision.io import ImageReadMode, decode_image

from model.preprocess import resize

SIZE_PX = 300


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    files = sorted(folder.iterdir())
    begun_s = time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for _ in threads.map(read_and_drop, files):
            pass
    print(len(files) / (time.perf_counter() - begun_s))


def read_and_drop(file: Path) -> None:
    resize(decode_image(str(file), mode=ImageReadMode.RGB), SIZE_PX)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
