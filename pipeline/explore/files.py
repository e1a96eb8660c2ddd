"""The files of a copy: arrays of numpy that are written part by part, and all that is mapped into memory to be read."""

import mmap
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray


class ArrayFile:
    """A file of one axis whose length is known when it is closed. The header has room for any length; source: numpy.lib.format.

    Args:
        path: the file.
        dtype: the type of its numbers.
    """

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self._dtype, self._length = np.dtype(dtype), 0
        self._file = path.open("wb")
        self._write_header()

    def append(self, values: NDArray[Any]) -> None:
        """Add values behind the last ones."""
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._length += len(values)

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()


class MappedFiles:
    """Files of a folder that are mapped into memory, to be read.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: list[mmap.mmap] = []

    def arrays(self, kind: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of `images` or of `boxes` by name."""
        return {path.stem.partition("-")[2]: self._array(path) for path in self._folder.glob(f"{kind}-*.npy")}

    def table(self, name: str) -> pa.Table:
        """Return the rows of an Arrow file."""
        with (self._folder / name).open("rb") as file:
            table: pa.Table = pa.ipc.open_file(pa.py_buffer(self._mapped(file))).read_all()
        return table

    def release(self) -> None:
        """Take all pages out of this process. Those that are needed again come back from the kernel's cache, at hardly any cost."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)

    def _array(self, path: Path) -> NDArray[Any]:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            (length,), _, dtype = np.lib.format.read_array_header_1_0(file)
            return np.frombuffer(self._mapped(file), dtype, length, file.tell())

    def _mapped(self, file: BinaryIO) -> mmap.mmap:
        self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return self._maps[-1]
