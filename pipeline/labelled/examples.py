"""The labelled images as examples for a training or an evaluation."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields

import numpy as np
import torch

from model.example import Example, Truth
from pipeline.errors import SsdBatchError, reason
from pipeline.images.decode import DecodeError, decode_stored, turn
from pipeline.labelled.record import DataError, LabelledImage, truths
from pipeline.machine import local_cores
from pipeline.progress import Progress
from pipeline.storage import store


class UnreadableError(DataError):
    """An image is not there, or can't be decoded. The message names it."""


class LabelledExamples(Sequence[Example]):
    """The images with their objects. An image is read and decoded when it is asked for.

    All objects are held in a few arrays, which a process of the cluster maps from shared memory. A million tensors would take each process
    a minute to load.

    Args:
        images: the cleaned images.
        class_names: the known classes. The class at index i has label i + 1.
        min_side_px: the fewest pixels per side to which a JPEG may be decoded; see `model.config.Preprocessing.min_side_px`.

    Raises:
        DataError: there are no images, or an object is of no known class.
    """

    def __init__(
        self, images: Sequence[LabelledImage], class_names: Sequence[str], min_side_px: int | None = None
    ) -> None:
        if not images:
            raise DataError("the data has no images")
        each = list(truths(images, class_names))
        self._min_side_px = min_side_px
        self._uris = np.array([image.uri for image in images])
        self._sizes_px = np.array([image.size_px or (0, 0) for image in images], dtype=np.int64)
        self._ends = np.cumsum([len(truth.labels) for truth in each])
        self._objects = {
            field.name: np.concatenate([getattr(truth, field.name).numpy() for truth in each])
            for field in fields(Truth)
        }

    def __len__(self) -> int:
        return len(self._uris)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        """Read and decode one image.

        Raises:
            UnreadableError: the image is not there, or can't be decoded. Another attempt would fail, too.
            DataError: the image has another size than annotated.
            SsdBatchError: the image can't be read now.
        """
        uri = self.uri(index)
        try:
            stored = decode_stored(store.read(uri), min_side_px=self._min_side_px)
        except (FileNotFoundError, PermissionError, DecodeError) as error:
            raise UnreadableError(f"{uri}: {reason(error)}") from error
        except OSError as error:
            raise SsdBatchError(f"{uri} can't be read: {reason(error)}") from error
        found, said = stored.size_px, tuple(self._sizes_px[index].tolist())
        if any(said) and found != said:
            turned = " before EXIF turns it" if found == said[::-1] else ""
            raise DataError(
                f"{uri}: the picture is {found[0]}×{found[1]} pixels, annotated{turned} as {said[0]}×{said[1]}; its boxes are "
                "those of another picture, so mend its annotation (ssd-batch data check names all of this kind)"
            )
        return Example(turn(stored.pixels, stored.orientation), self.truth(index), uri, found)

    def look_at_all(self) -> "list[tuple[int, int] | UnreadableError]":
        """Read and decode all images, and show the progress on standard error.

        Returns:
            The width and height of each image, or the error of one that can't be read.

        Raises:
            DataError, SsdBatchError: the annotation of an image, or the store, is at fault; see `__getitem__`.
        """

        def look(index: int) -> tuple[int, int] | UnreadableError:
            try:
                return self[index].size_px
            except UnreadableError as error:
                return error

        found = []
        with ThreadPoolExecutor(local_cores()) as threads, closing(Progress(len(self))) as progress:
            try:
                for size_or_error in threads.map(look, range(len(self))):
                    found.append(size_or_error)
                    progress.update(1, int(isinstance(size_or_error, UnreadableError)))
            finally:
                threads.shutdown(cancel_futures=True)
        return found

    @property
    def digest(self) -> str:
        """Return the sha256, in hex, of the images' URIs and all their objects."""
        digest = hashlib.sha256("\n".join(self._uris).encode())
        for array in (self._ends, *self._objects.values()):
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def uri(self, index: int) -> str:
        """Return the URI of an image, without reading it."""
        return str(self._uris[index])

    def truth(self, index: int) -> Truth:
        """Return the objects of an image, without reading it."""
        of_image = slice(self._ends[index - 1] if index else 0, self._ends[index])
        return Truth(**{name: torch.tensor(array[of_image]) for name, array in self._objects.items()})
