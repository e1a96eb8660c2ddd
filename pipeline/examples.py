"""Labelled images as examples that a training or a measurement takes."""

from collections.abc import Sequence

from model.example import Example
from pipeline import storage
from pipeline.decode import DecodeError, decode
from pipeline.errors import reason
from pipeline.labelled import DataError, LabelledImage, truths


class LabelledExamples(Sequence[Example]):
    """Images with their objects, read and decoded when asked for.

    Args:
        images: cleaned.
        class_names: the class at index i has label i + 1.

    Raises:
        DataError: an object is of no known class.
    """

    def __init__(self, images: Sequence[LabelledImage], class_names: Sequence[str]) -> None:
        self._uris = [image.uri for image in images]
        self._truths = list(truths(images, class_names))

    def __len__(self) -> int:
        return len(self._uris)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        uri = self._uris[index]
        try:
            return Example(decode(storage.read(uri)), self._truths[index])
        except (OSError, DecodeError) as error:
            raise DataError(f"{uri}: {reason(error)}") from error
