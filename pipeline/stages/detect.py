"""The second stage, from pixels to detections. Workers without a GPU run both stages in one process."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.detector import Detector
from model.memory import keep_freed_memory
from model.package import ModelPackage
from model.postprocess import Detections
from pipeline.errors import reason
from pipeline.stages.rows import PIXELS, ROW, failure, finish, numbered
from pipeline.stages.runner import Decoded, Stages, batch_size_on
from pipeline.table.schema import DETECTION

logger = logging.getLogger(__name__)

FOUND = ".found"
"""The key of an image's detections, among its columns."""
Block = tuple[int, int]
"""The planned rows [start, stop), by their numbers."""


class DetectStage:
    """A model on one device. It turns decoded images into rows of the table. Of several threads that call it, one detects at a time.

    Args:
        stages: the model, and the values of rows next to detections.
        device: a GPU, or "cpu". On "cpu" it uses one thread, because each core has a process of its own.
        name: the detector's name in the measurements of a run.
    """

    def __init__(self, stages: Stages, device: str, name: str) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        package = ModelPackage.from_files(stages.package_files)
        self._is_on_gpu = device != "cpu"
        self._lock = threading.Lock()
        self._detector = detector = Detector(package, torch.device(device), stages.precision, stages.num_images)
        self._class_names = pa.array(["", *self._detector.record.class_names])
        self._stages, self._batch_size = stages, batch_size_on(device, stages.batch_size)
        peak = detector.peak_images_per_s() if stages.num_images else None
        measured = {".detector": name, ".engine": detector.engine, ".peak_images_per_s": peak}
        self._constants = {**stages.constants, **measured}

    def __call__(self, rows: pa.Table, images: Iterator[Decoded]) -> pa.Table:
        """Detect objects in the images of planned rows.

        Args:
            rows: the planned rows, with `ROW`.
            images: the image of each row, in the same order. They are asked for one batch at a time.

        Returns:
            The rows with the columns of `Stages.schema`, and `ROW`.
        """
        images_found: list[Decoded] = []
        batch: list[Decoded] = []
        for image in images:
            images_found.append(image)
            if image.get(PIXELS) is not None:
                batch.append(image)
            if len(batch) >= self._batch_size:
                self._detect_batch(batch)
                batch = []
        self._detect_batch(batch)
        found = [image.pop(FOUND, None) for image in images_found]
        columns = detection_columns(found, self._class_names)
        return finish(rows, images_found, self._constants, self._stages.schema, **columns)

    def _detect_batch(self, batch: list[Decoded]) -> None:
        """Add the detections or the error to each image, with the measurements, and drop its pixels."""
        if not batch:
            return
        sizes_px = torch.tensor([[image["width_px"], image["height_px"]] for image in batch], dtype=torch.float32)
        try:
            pixels = self._pixels(batch)
            with self._lock:
                began_s = time.perf_counter()
                self._detect(batch, pixels, sizes_px)
                took_s = time.perf_counter() - began_s
        except torch.AcceleratorError as error:
            # This process has lost the device, and each later batch would fail, too. The next process can use it again.
            logger.error("the detector's process ends, as its device fails: %s", reason(error))
            os._exit(1)
        share = 1 / len(batch)
        for image in batch:
            image |= {PIXELS: None, ".detect_s": took_s * share, ".batch_share": share}

    def _detect(self, batch: list[Decoded], pixels: Tensor, sizes_px: Tensor) -> None:
        """Detect objects in a batch. If the batch fails, try each image alone, so that only the culprit fails.

        A batch that is too large for a GPU's memory is halved, and so are all later ones.
        """
        try:
            found = self._detector(pixels, sizes_px)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if len(batch) == 1:
                batch[0].update(failure("detect", error))
                return
            is_too_large = isinstance(error, torch.OutOfMemoryError)
        else:
            for image, detections in zip(batch, found, strict=True):
                image[FOUND] = detections
            return
        # Not within the handler: there the error would hold the frames of the failed pass, and they its memory.
        parts = [slice(index, index + 1) for index in range(len(batch))]
        if is_too_large:
            half = len(batch) // 2
            self._batch_size = min(self._batch_size, half)
            logger.warning(
                "a batch of %s images does not fit into the GPU's memory; batches have %s now",
                len(batch),
                self._batch_size,
            )
            parts = [slice(half), slice(half, None)]
        for part in parts:
            self._detect(batch[part], pixels[part], sizes_px[part])

    def _pixels(self, batch: list[Decoded]) -> Tensor:
        """Return the pixels, (B, 3, S, S) uint8, a view of channels-last memory. For a GPU it is pinned, so that the copy is not waited for."""
        pixels = torch.empty((len(batch), *batch[0][PIXELS].shape), dtype=torch.uint8, pin_memory=self._is_on_gpu)
        np.stack([image[PIXELS] for image in batch], out=pixels.numpy())
        return pixels.permute(0, 3, 1, 2)


def detection_columns(found: list[Detections | None], class_names: pa.Array) -> dict[str, pa.Array]:
    """Return the columns of the table that detections fill. They are null where an image failed.

    Args:
        found: the detections in each image; None where an image failed.
        class_names: the name of each label, from 0, the background.
    """
    counts = [None if image is None else len(image.scores) for image in found]
    best = [None if image is None or not len(image.scores) else float(image.scores.max()) for image in found]
    images = [image for image in found if image is not None]
    boxes, scores, labels = (
        _joined([getattr(image, name).numpy() for image in images]) for name in ("boxes_xyxy", "scores", "labels")
    )
    fields = [
        pa.array(labels.astype(np.int32)),
        class_names.take(pa.array(labels.astype(np.int64))),
        pa.array(scores.astype(np.float32)),
        *(pa.array(side.astype(np.float32)) for side in boxes.reshape(-1, 4).T),
    ]
    structs = pa.StructArray.from_arrays(fields, fields=list(DETECTION))
    # Where an image failed the offset is null, and so is its list.
    ends = np.cumsum([0, *(count or 0 for count in counts)])
    offsets = pa.array(ends.tolist(), pa.int32(), mask=np.array([count is None for count in counts] + [False]))
    return {
        "num_detections": pa.array(counts, pa.int32()),
        "max_score": pa.array(best, pa.float32()),
        "detections": pa.ListArray.from_arrays(offsets, structs),
    }


def _joined(arrays: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    return np.concatenate(arrays) if arrays else np.empty(0, np.float32)


class Worker:
    """A worker that runs both stages in one process, on a core.

    Args:
        stages: both stages.
        name: the detector's name in the measurements of a run.
    """

    def __init__(self, stages: Stages, name: str) -> None:
        self._stages = stages
        self._detect = DetectStage(stages, "cpu", name)
        self._begun: tuple[Block, pa.Table, Iterator[Decoded]] | None = None
        self._lock = threading.Lock()

    def __call__(self, block: Block, following: Block | None = None) -> pa.Table:
        """Turn planned rows into rows of the table.

        Args:
            block: the rows.
            following: the rows that are probably next. Reading them begins at once.
        """
        begun = self._begun if self._begun and self._begun[0] == block else self._begin(block)
        self._begun = self._begin(following) if following else None
        with self._lock:  # A Ray actor makes several calls at once: one reads while another computes.
            return self._detect(*begun[1:])

    def _begin(self, block: Block) -> tuple[Block, pa.Table, Iterator[Decoded]]:
        rows = numbered(self._stages.read(*block), block[0])
        return block, rows, self._stages.decode(rows)

    def decode(self, number: int) -> pa.Table:
        """Return a planned row with its pixels."""
        return decode_block(self._stages, (number, number + 1))

    def detect(self, images: pa.Table) -> pa.Table:
        """Return the rows of the table for rows with pixels, which `decode_block` makes."""
        return detect_images(self._detect, images)


def decode_block(stages: Stages, block: Block) -> pa.Table:
    """Turn planned rows into rows with pixels, to send to a detector: columns of the plan, of `Stages.decoded`, and `PIXELS`."""
    torch.set_num_threads(1)
    rows = numbered(stages.read(*block), block[0])
    images = list(stages.decode(rows))
    for field in stages.decoded:
        rows = rows.append_column(field, pa.array([image.get(field.name) for image in images], field.type))
    pixels = (image.get(PIXELS) for image in images)
    contents = [None if squares is None else squares.tobytes() for squares in pixels]
    return rows.append_column(PIXELS, pa.array(contents, pa.large_binary()))


def detect_images(detect: DetectStage, images: pa.Table) -> pa.Table:
    """Turn rows with pixels, which `decode_block` makes, into rows of the table."""
    return detect(images.drop_columns([PIXELS]), _to_decoded(images))


def _to_decoded(images: pa.Table) -> Iterator[Decoded]:
    batches = images.to_batches()
    return chain.from_iterable(map(_batch_to_decoded, batches))


def _batch_to_decoded(batch: pa.RecordBatch) -> Iterator[Decoded]:
    names = [name for name in batch.schema.names if name not in (PIXELS, ROW)]
    columns = batch.select(names).to_pylist()
    for row, content in zip(columns, batch[PIXELS], strict=True):
        yield row | {PIXELS: _square(content.as_buffer()) if content.is_valid else None}


def _square(content: pa.Buffer) -> NDArray[np.uint8]:
    """Return the pixels, (S, S, 3) uint8, from their bytes, without a copy."""
    flat = np.frombuffer(content, np.uint8)
    side = round((len(flat) / 3) ** 0.5)
    return flat.reshape(side, side, 3)
