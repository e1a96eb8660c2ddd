"""Measure the detector alone, on tensors in memory: a process for each core, with one thread each, as a run has them.

python -m tests.benchmarks.bare_detector FOLDER MODEL NUM_IMAGES [PRECISION] [ENGINE]: prints images/s of all processes together, their
peak by a matrix product, and the engine, as JSON. ENGINE is auto, as in a run of NUM_IMAGES, torch, openvino, or own: OpenVINO with
its own postprocessing.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

from model.config import Precision

BATCH_SIZE, NUM_LOADED = 8, 200
MEET_S = 120.0
"""Time for all processes to load; when one of them dies, the others give up after it."""
MANY, FEW = 10**9, 0
"""Numbers of images for which OpenVINO is chosen, and torch."""


def detect(
    folder: Path, model: Path, num_images: int, precision: Precision, engine: str, together: Any, rates: Any
) -> None:
    """Load, wait for the other processes, detect, and say how fast that was."""
    import torch
    from torchvision.io import ImageReadMode, decode_image

    from model.detector import Detector
    from model.memory import keep_freed_memory
    from model.package import ModelPackage
    from model.postprocess import Detections
    from model.preprocess import resize
    from pipeline.registry.packages import read_files

    torch.set_num_threads(1)
    keep_freed_memory()
    package = ModelPackage.from_files(read_files(str(model)).content)
    run_images = {"torch": FEW, "openvino": MANY}.get(engine, num_images * len(os.sched_getaffinity(0)))
    detector = Detector(package, torch.device("cpu"), precision, run_images)
    detects: Callable[[torch.Tensor, torch.Tensor], list[Detections]] = detector
    if engine == "own":
        from tests.benchmarks.detection_output import DetectionOutput

        detects = DetectionOutput(package)
    files = sorted(folder.iterdir())[:NUM_LOADED]
    squares = [resize(decode_image(str(f), mode=ImageReadMode.RGB), detector.image_size_px) for f in files]
    batches = [
        torch.stack(squares[start : start + BATCH_SIZE]).contiguous(memory_format=torch.channels_last)
        for start in range(0, len(squares), BATCH_SIZE)
    ]
    sizes_px = torch.full((BATCH_SIZE, 2), 500.0)
    detects(batches[0], sizes_px[: len(batches[0])])
    together.wait(MEET_S)
    peak = detector.peak_images_per_s()
    together.wait(MEET_S)
    begun_s, num_done, num_found = time.perf_counter(), 0, 0
    while num_done < num_images:
        for batch in batches:
            num_found += sum(len(found.scores) for found in detects(batch, sizes_px[: len(batch)]))
            num_done += len(batch)
            if num_done >= num_images:
                break
    rates.put((num_done / (time.perf_counter() - begun_s), peak, detector.engine, num_found / num_done))


def main(folder: Path, model: Path, num_images: int, precision: Precision = "auto", engine: str = "auto") -> None:
    cores, context = len(os.sched_getaffinity(0)), get_context("spawn")
    together, rates = context.Barrier(cores), context.Queue()
    arguments = (folder, model, max(1, num_images // cores), precision, engine, together, rates)
    processes = [context.Process(target=detect, args=arguments, daemon=True) for _ in range(cores)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode != 0 for process in processes):
        sys.exit("a detector failed")
    each = [rates.get() for _ in processes]
    figures = {
        "images_per_s": sum(rate for rate, *_ in each), "peak_images_per_s": sum(peak for _, peak, *_ in each),
        "engine": each[0][2], "detections_per_image": each[0][3],
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    given = sys.argv[4:]
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), cast(Precision, (given or ["auto"])[0]), *given[1:])
