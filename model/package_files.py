"""The files of a model package, and its digest, without torch: enough to plan which images a model has not processed yet."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError, deserialize

from model.config import Architecture, Frozen, Preprocessing, Thresholds

WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "model.json"
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
    provenance: dict[str, Any] = Field(default_factory=dict)
    """The origin of the model: data, command, seed, time. It is not in the digest."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """The quality of the model, and the data that it was measured on. They are not in the digest."""


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
        if missing := {RECORD_FILE, WEIGHTS_FILE} - self.content.keys():
            raise PackageError(f"{' and '.join(sorted(missing))} missing")
        try:
            return PackageRecord.model_validate_json(self.content[RECORD_FILE])
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
            raise PackageError(f"{RECORD_FILE}: {'; '.join(lines)}") from error

    @cached_property
    def digest(self) -> str:
        """Return the sha256, in hex, of all that changes the boxes: weights, architecture, classes, preprocessing, thresholds."""
        fields = {"architecture", "class_names", "preprocessing", "thresholds"}
        settings = json.dumps(self.record.model_dump(mode="json", include=fields), sort_keys=True)
        digest = hashlib.sha256(settings.encode())
        try:
            tensors = sorted(deserialize(self.content[WEIGHTS_FILE]))  # type: ignore[no-untyped-call]
        except SafetensorError as error:
            raise PackageError(f"{WEIGHTS_FILE}: not a safetensors file ({error})") from error
        for name, tensor in tensors:
            dtype = TORCH_NAMES.get(tensor["dtype"], tensor["dtype"])
            digest.update(f"{name} torch.{dtype} {tuple(tensor['shape'])}".encode())
            digest.update(tensor["data"])
        return digest.hexdigest()
