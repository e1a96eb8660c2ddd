"""Drawn pictures as a runner's stages, with accidents. Apart, so that its processes do not import what only the tests need."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.demo.pictures import draw_picture
from pipeline.stages.rows import PIXELS, failure

SIDE_PX = 300


@dataclass(frozen=True)
class Drawn:
    """Decodes one and the same picture; before some rows something happens in the process that holds them.

    deadly: kill the process; fragile: kill it while a neighbour works, as where memory is short; hopeless: raise, for the block.
    """

    folder: str
    deadly: tuple[int, ...] = ()
    fragile: tuple[int, ...] = ()
    hopeless: tuple[int, ...] = ()

    def __call__(self, rows: pa.Table) -> Iterator[dict[str, Any]]:
        return map(self._image, rows["index"].to_pylist())

    def _image(self, index: int) -> dict[str, Any]:
        if index in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in self.fragile:
            self._die_beside_others(index)
        if index in self.hopeless:
            raise ArithmeticError("our mistake")
        if index == 1:
            return failure("decode", ValueError("no picture"))
        return {"width_px": 3000, "height_px": 300, ".bytes_read": 1, PIXELS: PICTURE.copy()}

    def _die_beside_others(self, index: int) -> None:
        """A flag stands while a fragile row is worked on. It is seen beside another's: then this process dies."""
        flag = Path(self.folder, str(index))
        flag.touch()
        time.sleep(0.3)
        others = [name for name in os.listdir(self.folder) if name != str(index)]
        flag.unlink()
        if others:
            os.kill(os.getpid(), signal.SIGKILL)


PICTURE = np.array(draw_picture(3).image.resize((SIDE_PX, SIDE_PX)))


def indexes(start: int, stop: int) -> pa.Table:
    return pa.table({"index": range(start, stop), "uri": [f"image {n}" for n in range(start, stop)]})
