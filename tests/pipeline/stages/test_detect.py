import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from model.config import Architecture, Thresholds
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.ssd import SSD
from pipeline.stages.detect import DetectStage
from pipeline.stages.rows import PIXELS, numbered
from pipeline.stages.runner import Stages, batch_size_on
from pipeline.stages.timings import METERS
from pipeline.table.schema import SCHEMA

NUM_IMAGES = 21


@pytest.fixture
def stage() -> Iterator[DetectStage]:
    torch.manual_seed(0)
    record = PackageRecord(
        name="narrow",
        architecture=Architecture(width=0.05),
        class_names=("disc", "square"),
        thresholds=Thresholds(score_thresh=0.2, detections_per_img=3),
    )
    files = ModelPackage(record, SSD(record.architecture, 3).state_dict()).to_files()
    stages = Stages(
        read=lambda start, stop: pa.table({}),
        decode=lambda rows: iter(()),
        decoded=pa.schema([]),
        package_files=files,
        batch_size=None,
        constants={"run_id": "r"},
        schema=pa.schema([*SCHEMA, *METERS]),
    )
    num_threads = torch.get_num_threads()
    yield DetectStage(stages, "cpu", "detector 1")
    torch.set_num_threads(num_threads)


def images() -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(0)
    for _ in range(NUM_IMAGES):
        pixels = generator.integers(0, 256, (300, 300, 3), np.uint8)
        yield {PIXELS: pixels, "width_px": 300, "height_px": 300}


def run(stage: DetectStage) -> list[dict[str, Any]]:
    planned = pa.table({"uri": [f"{number}.jpg" for number in range(NUM_IMAGES)]})
    rows: list[dict[str, Any]] = stage(numbered(planned, 0), images()).to_pylist()
    return rows


class SmallMemory:
    """A detector of which more images at once than this do not fit into the GPU."""

    def __init__(self, detector: Any, max_images: int) -> None:
        self._detector, self._max_images = detector, max_images
        self.sizes: list[int] = []
        self.held: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()

    def __call__(self, images: torch.Tensor, sizes_px: torch.Tensor) -> Any:
        assert not self.held, "a pass that failed still has its memory"
        self.sizes.append(len(images))
        if len(images) > self._max_images:
            activations = torch.empty(len(images))
            self.held.add(activations)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._detector(images, sizes_px)


def test_rows_name_the_detector_and_what_it_computes_with(stage):
    rows = run(stage)
    assert {row[".detector"] for row in rows} == {"detector 1"}
    assert {row[".engine"] for row in rows} == {stage._detector.engine}
    assert {row["num_detections"] for row in rows} == {3}


def test_how_many_images_a_batch_has():
    assert [batch_size_on(device, None) for device in ("cpu", "cuda")] == [8, 64]
    assert [batch_size_on(device, 3) for device in ("cpu", "cuda")] == [3, 3]


def test_batches_too_large_for_the_memory_are_halved_from_then_on(stage, caplog):
    expected = run(stage)
    stage._detector = small = SmallMemory(stage._detector, 2)
    found = run(stage)
    assert [row["status"] for row in found] == ["ok"] * NUM_IMAGES
    assert [row["uri"] for row in found] == [row["uri"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row["max_score"] == pytest.approx(other["max_score"], abs=0.02)
    first = small.sizes.index(2)
    assert small.sizes[:first] == [8, 4]
    assert set(small.sizes[first:]) == {4, 2, 1}  # 4: the other half of the first batch
    assert small.sizes.count(8) == 1
    assert "batches have 2 now" in caplog.text


def test_an_image_that_does_not_fit_alone_is_a_failure(stage):
    stage._detector = SmallMemory(stage._detector, 0)
    assert {(row["status"], row["error_stage"], row["error_type"]) for row in run(stage)} == {
        ("failed", "detect", "OutOfMemoryError")
    }
