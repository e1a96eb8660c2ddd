"""Labelled images as examples that a training or a measurement takes."""

import hashlib
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch

from model.example import Example, Truth
from pipeline import storage
from pipeline.decode import DecodeError, decode
from pipeline.errors import reason
from pipeline.labelled import DataError, LabelledImage, truths


class LabelledExamples(Sequence[Example]):
    """Images with their objects, read and decoded when asked for.

    All is held in a few arrays: a process of the cluster maps them from shared memory, where a million tensors would take
    each of them a minute to load.

    Args:
        images: cleaned.
        class_names: the class at index i has label i + 1.

    Raises:
        DataError: there are none, or an object is of no known class.
    """

    def __init__(self, images: Sequence[LabelledImage], class_names: Sequence[str]) -> None:
        if not images:
            raise DataError("the data has no images")
        each = list(truths(images, class_names))
        self._uris = np.array([image.uri for image in images])
        self._ends = np.cumsum([len(truth.labels) for truth in each])
        self._objects = {
            field.name: np.concatenate([getattr(truth, field.name).numpy() for truth in each])
            for field in fields(Truth)
        }

    def __len__(self) -> int:
        return len(self._uris)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        uri = self.uri(index)
        try:
            return Example(decode(storage.read(uri)), self.truth(index), uri)
        except (OSError, DecodeError) as error:
            raise DataError(f"{uri}: {reason(error)}") from error

    @property
    def digest(self) -> str:
        """sha256, in hex, over the images' URIs and all their objects."""
        digest = hashlib.sha256("\n".join(self._uris).encode())
        for array in (self._ends, *self._objects.values()):
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def uri(self, index: int) -> str:
        """Where an image is, without reading it."""
        return str(self._uris[index])

    def truth(self, index: int) -> Truth:
        """What stands in an image, without reading it."""
        mine = slice(self._ends[index - 1] if index else 0, self._ends[index])
        return Truth(**{name: torch.tensor(array[mine]) for name, array in self._objects.items()})
