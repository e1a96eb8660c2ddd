"""The metrics of a run in progress, for Prometheus.

All metrics come from the driver, where the rows with their measurements arrive; workers do nothing for them. Ray's agent on the
driver's node serves them, with the prefix `ray_` before the name. Counters also get the suffix `_total`. The agent computes the sum of a
histogram from the middles of its buckets. Sums that should be exact are therefore counters of their own.
"""

import pyarrow as pa
import pyarrow.compute as pc
from ray.util.metrics import Counter, Gauge, Histogram, Metric

from pipeline.stages.runner import RunObserver
from pipeline.urls import as_label

IMAGE_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
COMMIT_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
STAGES = {"fetch": ".fetch_s", "decode": ".decode_s", "detect": ".detect_s"}
"""The stages, each with the column of its measured seconds."""

IMAGES = Counter("ssd_batch_images", "Images that came back, by status.", ("table", "status"))
FAILURES = Counter("ssd_batch_failures", "Images that failed, by stage.", ("table", "stage"))
STAGE_SECONDS = Counter("ssd_batch_stage_seconds", "Seconds in a stage, summed over images.", ("table", "stage"))
IMAGE_SECONDS = Histogram(
    "ssd_batch_image_seconds",
    "Seconds of an image in a stage, as means of blocks.",
    list(IMAGE_BUCKETS_S),
    ("table", "stage"),
)
BYTES_READ = Counter("ssd_batch_read_bytes", "Bytes of images read.", ("table",))
BATCHED_IMAGES = Counter("ssd_batch_batched_images", "Images that detectors received.", ("table",))
BATCH_PLACES = Counter("ssd_batch_batch_places", "Images that their batches had room for.", ("table",))
COMMIT_SECONDS = Histogram("ssd_batch_commit_seconds", "Seconds of a commit.", list(COMMIT_BUCKETS_S), ("table",))
PLANNED_IMAGES = Gauge("ssd_batch_planned_images", "Images that the run has planned.", ("table",))
DETECTORS = Gauge("ssd_batch_detectors", "Largest number of detectors of the run.", ("table",))
LAG_SECONDS = Gauge("ssd_batch_lag_seconds", "Seconds from when the run was due to its start.", ("table",))
METRICS: tuple[Metric, ...] = (
    IMAGES, FAILURES, STAGE_SECONDS, IMAGE_SECONDS, BYTES_READ, BATCHED_IMAGES, BATCH_PLACES, COMMIT_SECONDS,
    PLANNED_IMAGES, DETECTORS, LAG_SECONDS,
)  # fmt: skip


class RunMetrics(RunObserver):
    """The metrics of one run.

    Args:
        table: the table's URL, which is the label of all metrics.
        batch_size: the number of images that a batch has room for.
    """

    def __init__(self, table: str, batch_size: int) -> None:
        self._labels, self._batch_size = {"table": as_label(table)}, batch_size
        self._gauges: dict[Gauge, float | None] = {}

    def begin(self, num_planned: int, num_detectors: int, lag_s: float | None) -> None:
        """Publish the numbers that are known when a run starts to detect."""
        self._gauges = {PLANNED_IMAGES: num_planned, DETECTORS: num_detectors, LAG_SECONDS: lag_s}
        self._set_gauges()

    def add(self, rows: pa.Table) -> None:
        """Count rows of the table with the columns of `pipeline.stages.timings.METERS`. The rows are one block at most."""
        self._set_gauges()
        self._count(IMAGES, status=rows["status"])
        self._count(FAILURES, stage=rows["error_stage"])
        for stage, column in STAGES.items():
            if num_images := rows.num_rows - rows[column].null_count:
                seconds, labels = pc.sum(rows[column]).as_py(), self._labels | {"stage": stage}
                _increase(STAGE_SECONDS, seconds, labels)
                IMAGE_SECONDS.observe(seconds / num_images, labels)
        _increase(BYTES_READ, pc.sum(rows[".bytes_read"]).as_py(), self._labels)
        _increase(BATCHED_IMAGES, rows.num_rows - rows[".batch_share"].null_count, self._labels)
        _increase(BATCH_PLACES, self._batch_size * (pc.sum(rows[".batch_share"]).as_py() or 0), self._labels)

    def committed(self, seconds: float) -> None:
        """Count a commit and its seconds."""
        COMMIT_SECONDS.observe(seconds, self._labels)

    def _set_gauges(self) -> None:
        """Set all gauges. This is repeated, because Ray forgets a gauge that was not set for 20 s."""
        for gauge, value in self._gauges.items():
            gauge.set(value, self._labels)

    def _count(self, counter: Counter, **column: pa.ChunkedArray) -> None:
        """Count rows by the values of a column, without nulls."""
        ((label, values),) = column.items()
        for entry in values.drop_null().value_counts().to_pylist():
            _increase(counter, entry["counts"], self._labels | {label: entry["values"]})


def _increase(counter: Counter, value: float | None, labels: dict[str, str]) -> None:
    """Increase a counter, unless the value is zero or None: Ray refuses to add zero."""
    if value:
        counter.inc(value, labels)
