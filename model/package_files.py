"""The files of a model package, and its digest, without torch: enough to plan which images a model has not processed yet."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, deserialize

from model.config import Architecture, Frozen, Precision, Preprocessing, Thresholds

WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "model.json"
QUANTIZED_FILES = ("model.int8.xml", "model.int8.bin")
"""The network of a quantized package, as OpenVINO stores it: its layers, and its numbers."""
BEST = "best"
"""The `min_score` that stands for each class's best score."""
TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""The names of tensor types in a safetensors file, and torch's names for them, which the digest contains."""


class PackageError(ValueError):
    """The model package can't be used; the message says what is wrong in it, and where."""


class PackageRecord(Frozen):
    """The content of `model.json`."""

    name: Annotated[str, Field(min_length=1)]
    """The model's name, for people; results are distinguished by the digest."""
    architecture: Architecture
    class_names: tuple[str, ...]
    """The names of the classes without the background: index i is label i + 1. A trunk, for training to start from, has none."""
    preprocessing: Preprocessing = Preprocessing()
    thresholds: Thresholds = Thresholds()
    quantized: Annotated[bool, Field(exclude_if=lambda quantized: not quantized)] = False
    """Detections come from a network of int8, next to the weights of which it was made."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """The origin of the model: data, command, seed, time. It is not in the digest."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """The quality of the model, and the data that it was measured on. They are not in the digest."""

    @model_validator(mode="after")
    def _a_least_score_per_class(self) -> "PackageRecord":
        if len(self.thresholds.min_scores) not in (0, len(self.class_names)):
            raise ValueError(
                f"thresholds.min_scores has {len(self.thresholds.min_scores)} entries for {len(self.class_names)} classes"
            )
        return self

    @property
    def file_names(self) -> tuple[str, ...]:
        """The files of the package."""
        return (RECORD_FILE, WEIGHTS_FILE, *(QUANTIZED_FILES if self.quantized else ()))

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()

    def check_precision(self, precision: Precision) -> None:
        """Check that detections in this precision are those that the digest stands for.

        Raises:
            PackageError: they are not.
        """
        if self.quantized and precision not in ("auto", "int8"):
            raise PackageError(
                f"it is quantized, and its digest stands for results in int8, not in {precision}; give precision auto, or the "
                "package that it was made of"
            )
        if precision == "int8" and not self.quantized:
            raise PackageError("it has no network of int8; make a package that has one with ssd-batch model quantize")


@dataclass(frozen=True)
class PackageFiles:
    """The content of a package's files by name.

    Raises:
        PackageError: a property is read, and a file is missing or not valid.
    """

    content: Mapping[str, bytes]

    @cached_property
    def record(self) -> PackageRecord:
        """Return the content of `model.json`."""
        try:
            return PackageRecord.model_validate_json(self[RECORD_FILE])
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
            raise PackageError(f"{RECORD_FILE}: {'; '.join(lines)}") from error

    def __getitem__(self, name: str) -> bytes:
        """Return the content of a file."""
        if name not in self.content:
            raise PackageError(f"{name} missing")
        return self.content[name]

    def with_min_score(self, min_score: str) -> "PackageFiles":
        """Return the package with a least score of detections, which changes its digest.

        Args:
            min_score: a number, or `BEST` for each class's best score, as the package's last measurement found it.

        Raises:
            PackageError: the package has no best scores.
        """
        record = self.record
        changes: dict[str, Any] = {}
        if min_score == BEST:
            best = record.metrics.get("best_scores")
            if not isinstance(best, dict):
                raise PackageError(
                    "it has no best scores; ssd-batch train leaves them in metrics, or give a number as min_score"
                )
            lowest = record.thresholds.score_thresh
            scores = (best.get(name, 1) for name in record.class_names)  # 1 where no detection was right
            changes = {"min_scores": [lowest if score == 1 else score for score in scores]}
        else:
            changes = {"score_thresh": float(min_score)}
        try:
            thresholds = Thresholds.model_validate(record.thresholds.model_dump() | changes)
        except ValidationError as error:
            raise PackageError(f"{RECORD_FILE}: metrics.best_scores must be numbers from 0 to 1") from error
        return self._with(record.model_copy(update={"thresholds": thresholds}))

    def with_test_time_flip(self) -> "PackageFiles":
        """Return the package that also detects in mirror images, which changes its digest."""
        preprocessing = self.record.preprocessing.model_copy(update={"test_time_flip": True})
        return self._with(self.record.model_copy(update={"preprocessing": preprocessing}))

    def _with(self, record: PackageRecord) -> "PackageFiles":
        return PackageFiles({**self.content, RECORD_FILE: record.to_bytes()})

    @cached_property
    def quantized(self) -> dict[str, bytes]:
        """Return the content of the files of int8, of which a package that is not quantized has none."""
        return {name: self[name] for name in QUANTIZED_FILES} if self.record.quantized else {}

    @cached_property
    def digest(self) -> str:
        """Return the sha256, in hex, of all that changes the boxes: weights, architecture, classes, preprocessing, thresholds, int8."""
        fields = {"architecture", "class_names", "preprocessing", "thresholds", "quantized"}
        settings = json.dumps(self.record.model_dump(mode="json", include=fields), sort_keys=True)
        digest = hashlib.sha256(settings.encode())
        try:
            tensors = sorted(deserialize(self[WEIGHTS_FILE]))  # type: ignore[no-untyped-call]
        except SafetensorError as error:
            raise PackageError(f"{WEIGHTS_FILE}: not a safetensors file ({error})") from error
        for name, tensor in tensors:
            dtype = TORCH_NAMES.get(tensor["dtype"], tensor["dtype"])
            digest.update(f"{name} torch.{dtype} {tuple(tensor['shape'])}".encode())
            digest.update(tensor["data"])
        for name, content in self.quantized.items():
            digest.update(f"{name} {len(content)}".encode())
            digest.update(content)
        return digest.hexdigest()
