"""The second stage: pixels to detections, on a pool of actors that each hold the model."""

import os
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from torch import Tensor

from model.detector import Detector
from model.memory import keep_freed_memory
from model.package import ModelPackage
from model.postprocess import Detections
from pipeline.fetch import failure
from pipeline.table import DETECTION


class DetectorActor:
    """One model on one GPU, or on one core with one thread.

    Args:
        package_files: a reference to the package's files in the object store, so that all actors hold the same model;
            in a list, where Ray leaves it a reference.
        batch_size: images a forward pass.
        constants: columns that all rows of the run share.
        schema: the table's, and where the run measures itself, that of its meters.
    """

    def __init__(
        self,
        package_files: "list[ray.ObjectRef[dict[str, bytes]]]",
        batch_size: int,
        constants: dict[str, Any],
        schema: pa.Schema,
    ) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
        self._detector = Detector(ModelPackage.from_files(*ray.get(package_files)), device)
        self._class_names = np.array(["", *self._detector.record.class_names])
        self._batch_size = batch_size
        self._constants = constants
        self._schema = schema
        self._name = ray.get_runtime_context().get_actor_id()

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows with pixels, or with an error already, to rows of the table."""
        rows = block.drop_columns(["pixels"]).to_pylist()
        pixels = block["pixels"].to_pylist()
        waiting = [i for i, content in enumerate(pixels) if content is not None]
        for start in range(0, len(waiting), self._batch_size):
            chosen = waiting[start : start + self._batch_size]
            began_s = time.perf_counter()
            results = self._detect([pixels[i] for i in chosen], [rows[i] for i in chosen])
            share = 1 / len(chosen)
            took = {"detect_s": (time.perf_counter() - began_s) * share, "batch_share": share, "detector": self._name}
            for row, result in zip(chosen, results, strict=True):
                rows[row] |= result | took
        return finish(rows, self._constants, self._schema)

    def _detect(self, pixels: list[bytes], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Detections of a batch; when it fails, of each image alone, so that only the culprit fails."""
        try:
            found = self._detector(
                self._images(pixels), torch.tensor([[r["width_px"], r["height_px"]] for r in rows]).float()
            )
        except torch.AcceleratorError:
            # The device is lost to this process, each later batch would fail too; the next process gets it anew.
            os._exit(1)
        except Exception as error:
            if len(rows) == 1:
                return [failure("detect", error)]
            return [result for p, r in zip(pixels, rows, strict=True) for result in self._detect([p], [r])]
        return [{"detections": self._records(detections)} for detections in found]

    def _images(self, pixels: list[bytes]) -> Tensor:
        """(B, 3, S, S) uint8, a view of channels-last memory."""
        side = self._detector.image_size_px
        batch = np.frombuffer(b"".join(pixels), dtype=np.uint8).reshape(-1, side, side, 3)
        return torch.from_numpy(batch.copy()).permute(0, 3, 1, 2)

    def _records(self, found: Detections) -> list[dict[str, Any]]:
        labels = found.labels.tolist()
        values = zip(
            labels, self._class_names[labels].tolist(), found.scores.tolist(), *found.boxes_xyxy.T.tolist(), strict=True
        )
        return [dict(zip(DETECTION.names, value, strict=True)) for value in values]


def finish(rows: list[dict[str, Any]], constants: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """Rows with detections, or with an error, to rows of the table.

    Args:
        rows: planned rows, with what the stages found.
        constants: columns that all rows of the run share.
        schema: the table's.
    """
    now = datetime.now(UTC)
    return pa.Table.from_pylist([_finished(row) | constants | {"processed_at": now} for row in rows], schema=schema)


def _finished(row: dict[str, Any]) -> dict[str, Any]:
    if row["error_stage"] is not None:
        return row | {"status": "failed"}
    scores = [detection["score"] for detection in row["detections"]]
    return row | {"status": "ok", "num_detections": len(scores), "max_score": max(scores, default=None)}
