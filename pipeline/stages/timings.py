"""The measurements of images. Processes that work on images take them, the driver sums them, and the table does not hold them."""

import time
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:  # which brings deltalake, and the processes that work on images import this module
    from pipeline.table.run_records import RunRecord

READ_METERS = pa.schema(
    [(".fetch_s", pa.float64()), (".decode_s", pa.float64()), (".bytes_read", pa.int64()), (".num_retries", pa.int32())]
)
"""The columns with an image's measurements from the first stage.

`.fetch_s` is the seconds that the decoder waited for the image's bytes. `.decode_s` is the seconds that it decoded and resized them.
`.bytes_read` is the number of bytes. `.num_retries` is the number of requests that had to be repeated; repetitions by the store's client
itself are not counted.

All measurements have a dot before their name, as `pipeline.stages.rows.ROW` has. No column from a path has such a name.
"""
METERS = pa.schema(
    [
        *READ_METERS,
        (".detect_s", pa.float64()),
        (".batch_share", pa.float64()),
        (".detector", pa.string()),
        (".engine", pa.string()),
        (".peak_images_per_s", pa.float64()),
    ]
)
"""The columns with an image's measurements from both stages: `READ_METERS`, and five from the second stage.

`.detect_s` is the image's share of the seconds that its batch was in a detector. `.batch_share` is the image's share of the batch: 0.25
in a batch of four. `.detector` is the detector's name, `.engine` what it computes with, and `.peak_images_per_s` the limit of its speed.
"""
SUMMED = ("fetch_s", "decode_s", "bytes_read", "num_retries", "detect_s")


class Meters:
    """Sums the measurements of a run's images, as their rows come in.

    Args:
        started_s: the time at which the run began, by `time.monotonic`.
        most_detectors: the most detectors at once. A pool may have had fewer.
    """

    def __init__(self, started_s: float, most_detectors: int) -> None:
        self._started_s, self._most_detectors = started_s, most_detectors
        self._totals = dict.fromkeys(SUMMED, 0.0)
        self._detectors: set[str] = set()
        self._engines: set[str] = set()
        self._peak_images_per_s: list[float] = []
        self._num_images = 0
        self._first: tuple[float, int, float] | None = None
        self._last_s = started_s

    def take(self, rows: pa.Table) -> pa.Table:
        """Add rows with the columns of `METERS`, and return them without these columns."""
        self._last_s = time.monotonic()
        self._num_images += rows.num_rows
        for name in SUMMED:
            self._totals[name] += pc.sum(rows[f".{name}"]).as_py() or 0
        self._detectors |= set(rows[".detector"].drop_null().unique().to_pylist())
        self._engines |= set(rows[".engine"].drop_null().unique().to_pylist())
        self._peak_images_per_s = self._peak_images_per_s or rows[".peak_images_per_s"].drop_null().unique().to_pylist()
        self._first = self._first or (self._last_s, self._num_images, self._totals["detect_s"])
        return rows.drop_columns(METERS.names)

    def record(self, record: "RunRecord") -> None:
        """Put the sums and rates into a run's record.

        Rates are measured from the first results on, and do not count these, because work on them began earlier. Rates are null if no
        results followed the first ones.
        """
        totals = self._totals
        record.fetch_s, record.decode_s, record.detect_s = totals["fetch_s"], totals["decode_s"], totals["detect_s"]
        record.engine = ", ".join(sorted(self._engines)) or None
        record.peak_images_per_s = min(self._peak_images_per_s, default=None)
        record.bytes_read, record.num_retries = int(totals["bytes_read"]), int(totals["num_retries"])
        if self._first is None:
            return
        first_s, num_first, first_detect_s = self._first
        stream_s, num_detectors = self._last_s - first_s, min(len(self._detectors), self._most_detectors)
        record.start_up_s, record.stream_s, record.num_detectors = first_s - self._started_s, stream_s, num_detectors
        if stream_s and num_detectors and self._num_images > num_first:
            busy_s = totals["detect_s"] - first_detect_s
            record.stream_images_per_s = (self._num_images - num_first) / stream_s
            record.detector_busy_share = min(1.0, busy_s / (num_detectors * stream_s))
