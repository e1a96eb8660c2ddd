"""A list in JSON that is written entry by entry, so that it need not fit into memory."""

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, BinaryIO

import msgspec


class JsonList(AbstractContextManager["JsonList"]):
    """A list in a file. It is complete when the context ends.

    Args:
        file: the file, which may hold more before and after the list.
        brackets: the signs before and after the list: `{}` for an object, whose entries are pairs.
    """

    def __init__(self, file: BinaryIO, brackets: str = "[]") -> None:
        self._file, self._brackets = file, brackets.encode()
        self.num_entries = 0

    def __enter__(self) -> "JsonList":
        self._file.write(self._brackets[:1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.write(self._brackets[1:])

    def add(self, entry: Any) -> None:
        """Write the next entry."""
        self._write(msgspec.json.encode(entry))

    def add_pair(self, key: str, value: Any) -> None:
        """Write the next pair of an object."""
        self._write(msgspec.json.encode(key) + b":" + msgspec.json.encode(value))

    def _write(self, content: bytes) -> None:
        self._file.write(b",\n" + content if self.num_entries else content)
        self.num_entries += 1
