"""Detect as Ray Data's own pages do: read_images, then map_batches over a pool of actors, then write_parquet.

python -m tests.benchmarks.peer_ray FOLDER MODEL OUTPUT
"""

import os
import sys
from typing import Any

import ray
import torch
from ray.data import ActorPoolStrategy, DataContext

BATCH_SIZE = 8
SIZE_PX = 300


class Detect:
    """An actor with a model."""

    def __init__(self, model: str) -> None:
        from tests.benchmarks.torchvision_detector import TorchvisionDetector

        self._detector = TorchvisionDetector(model)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        images = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in batch["image"]]
        return {"uri": batch["path"]} | self._detector(images)


def main(folder: str, model: str, output: str) -> None:
    cores = len(os.sched_getaffinity(0))
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
    DataContext.get_current().enable_progress_bars = False
    images = ray.data.read_images(folder, size=(SIZE_PX, SIZE_PX), mode="RGB", include_paths=True)
    # Actors that booked all cores would leave none for reading.
    detections = images.map_batches(
        Detect, fn_constructor_args=(model,), batch_size=BATCH_SIZE, compute=ActorPoolStrategy(size=cores),
        num_cpus=min(1.0, (cores - 1) / cores),
    )  # fmt: skip
    detections.write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:4])
