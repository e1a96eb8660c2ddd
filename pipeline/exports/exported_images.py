"""The images of a data set: their names, and copies of them."""

import csv
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.errors import reason
from pipeline.exports.folder import NewFolder
from pipeline.exports.names import ImageNames
from pipeline.exports.selection import SelectedImage
from pipeline.images.read import read_version

logger = logging.getLogger(__name__)

NUM_READ_THREADS = 32
MAX_READING = 64
"""The number of images that are read ahead, which bounds the memory that they take."""
INDEX = "images.csv"
"""The file that says which image has which name."""


class ExportedImages:
    """The images of a data set in the order in which they are taken. Leaves an index of them in the folder.

    Args:
        folder: the folder of the data set.
        images_folder: the name of the folder for the copies within it.
        common_folder: the folder that all images are below.
        copies_images: copy the images, or name them only.
    """

    def __init__(self, folder: NewFolder, images_folder: str, common_folder: str, copies_images: bool) -> None:
        self._folder, self._images_folder = folder, images_folder
        self._common_folder, self.are_copied = common_folder, copies_images
        self._names = ImageNames(common_folder)
        self.num_images, self.num_not_copied = 0, 0

    def named(self, images: Iterator[SelectedImage]) -> Iterator[tuple[str, SelectedImage]]:
        """Yield each image with a name of its own, and copy it; for labels in a file of that name.

        An image that can't be read stays in the data set, and the index says why.
        """
        return self._indexed(images, lambda name, _: name)

    def with_paths(self, images: Iterator[SelectedImage]) -> Iterator[tuple[str, SelectedImage]]:
        """Yield each image with the name of its copy or, where nothing is copied, its path below the folder of all images; else as `named`."""
        return self._indexed(images, self._path)

    def _path(self, name: str, uri: str) -> str:
        return name if self.are_copied else uri.removeprefix(self._common_folder)

    def _indexed(
        self, images: Iterator[SelectedImage], called: Callable[[str, str], str]
    ) -> Iterator[tuple[str, SelectedImage]]:
        """Yield each image with what the data set and the index call it."""
        with self._folder.text_file(INDEX) as file:
            index = csv.writer(file, lineterminator="\n")
            index.writerow(("file_name", "uri", "etag", "error"))
            for name, image, error in self._copied(images):
                self.num_images += 1
                self.num_not_copied += bool(error)
                file_name = called(name, image.uri)
                index.writerow((file_name, image.uri, image.etag, error))
                yield file_name, image
        if self.num_not_copied:
            logger.warning("%s images could not be copied; %s says why", f"{self.num_not_copied:,}", INDEX)

    def _copied(self, images: Iterator[SelectedImage]) -> Iterator[tuple[str, SelectedImage, str]]:
        """Yield each image with its name and, if it can't be copied, why not."""
        reading: deque[tuple[str, SelectedImage, Future[bytes]]] = deque()
        with ThreadPoolExecutor(NUM_READ_THREADS) as threads:
            for image in images:
                name = self._names.name(image.uri)
                if not self.are_copied:
                    yield name, image, ""
                    continue
                reading.append((name, image, threads.submit(_read, image)))
                if len(reading) == MAX_READING:
                    yield self._written(*reading.popleft())
            while reading:
                yield self._written(*reading.popleft())

    def _written(self, name: str, image: SelectedImage, content: Future[bytes]) -> tuple[str, SelectedImage, str]:
        try:
            data = content.result()
        except Exception as error:  # whatever the store raises
            return name, image, reason(error)
        self._folder.write(f"{self._images_folder}/{name}", data)
        return name, image, ""


def _read(image: SelectedImage) -> bytes:
    return read_version(image.uri, image.etag, image.size_bytes).data
