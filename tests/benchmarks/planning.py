"""How long a plan takes, and how much memory, as listing and table grow: the real command, `infer --dry-run`.

    python -m tests.benchmarks.planning 1 3 10      millions of listed images; the table holds 99 in 100 of them

The listing is a Parquet manifest with etags and sizes. Data of ten million takes 1.5 GB below the temporary folder.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from pipeline.registry.packages import read_package
from pipeline.table.delta import ResultTable
from pipeline.table.schema import SCHEMA

MODEL = Path("jobs/demo/model")
ROWS_A_COMMIT = 500_000

LISTING = """
    SELECT format('s3://photos-of-all-sites/site-{:03d}/2026-{:02d}/image-{:09d}.jpg', i % 50, 1 + i % 12, i) AS uri,
        md5(i::VARCHAR) AS etag, 20000 + i % 5000 AS size_bytes, TIMESTAMPTZ '2026-01-01' + to_seconds(i) AS last_modified
    FROM range(?) AS numbers(i)
"""
ROWS = """
    SELECT * EXCLUDE number, 'demo' AS model_name, $digest AS model_digest, 'r' || $first AS run_id,
        DATE '2026-01-01' + ($first // $step)::INTEGER AS run_date, now() AS processed_at,
        if(number % 1000 = 0, 'failed', 'ok') AS status, if(number % 1000 = 0, 'fetch', NULL) AS error_stage,
        NULL AS error_type, NULL AS error_message, 1 AS num_attempts, 640 AS width_px, 480 AS height_px, 2 AS num_detections,
        0.9 AS max_score, [{label_id: 1, label: 'disc', score: 0.9, xmin: 1, ymin: 2, xmax: 3, ymax: 4} FOR _ IN [1, 2]] AS detections
    FROM (SELECT *, row_number() OVER () AS number FROM read_parquet($listing) LIMIT $step OFFSET $first)
"""


def make(folder: Path, num_images: int) -> None:
    """A listing, and a table that holds 99 in 100 of it."""
    with duckdb.connect() as db:
        listing = folder / "listing.parquet"
        pq.write_table(db.sql(LISTING, params=[num_images]).to_arrow_table(), listing)
        table = ResultTable(str(folder / "table"))
        table.create()
        num_done, digest = num_images * 99 // 100, read_package(str(MODEL)).digest
        for first in range(0, num_done, ROWS_A_COMMIT):
            step = min(ROWS_A_COMMIT, num_done - first)
            rows = db.sql(ROWS, params={"listing": str(listing), "first": first, "step": step, "digest": digest})
            table.append(rows.to_arrow_table().select(SCHEMA.names).cast(SCHEMA))
            table.refreshed()


def measure(folder: Path) -> tuple[float, float, dict[str, int]]:
    """Seconds, peak memory in MiB and the counts of one plan."""
    arguments = [
        "--input",
        folder / "listing.parquet",
        "--table",
        folder / "table",
        "--model",
        MODEL,
        "--dry-run",
        "--json",
    ]
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "jobs", "infer", *map(str, arguments)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    summary = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.monotonic() - started, usage.ru_maxrss / 1024, summary


def main() -> None:
    """Print a line a size."""
    print(f"{'listed':>12} {'planned':>10} {'seconds':>8} {'MiB':>6}")
    for millions in map(float, sys.argv[1:]):
        with tempfile.TemporaryDirectory(prefix="ssd-batch-planning-") as folder:
            make(Path(folder), int(millions * 1e6))
            wall_s, peak_mib, summary = measure(Path(folder))
            print(f"{summary['listed']:>12,} {summary['planned']:>10,} {wall_s:>8.1f} {peak_mib:>6,.0f}", flush=True)


if __name__ == "__main__":
    main()
