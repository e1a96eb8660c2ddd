"""Measure how long a plan takes, and how much memory, against a table that holds 99 in 100 of the listed images.

The command is `infer --dry-run`, as a whole process. The listing is a Parquet manifest with etags and sizes. Data of ten million
images takes 1.5 GB below the temporary folder.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from jobs.demo import PACKAGE
from pipeline.registry.packages import read_package
from pipeline.table.delta import ResultTable
from pipeline.table.schema import SCHEMA
from tests.benchmarks.sides import LOOK_INTERVAL_S, Took, measure, report, spread

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
    """Write a listing, and a table that holds 99 in 100 of it."""
    with duckdb.connect() as db:
        listing = folder / "listing.parquet"
        pq.write_table(db.sql(LISTING, params=[num_images]).to_arrow_table(), listing)
        table = ResultTable(str(folder / "table"))
        table.create()
        num_done, digest = num_images * 99 // 100, read_package(str(PACKAGE)).digest
        for first in range(0, num_done, ROWS_A_COMMIT):
            step = min(ROWS_A_COMMIT, num_done - first)
            rows = db.sql(ROWS, params={"listing": str(listing), "first": first, "step": step, "digest": digest})
            table.append(rows.to_arrow_table().select(SCHEMA.names).cast(SCHEMA))
            table.refreshed()


def plan(folder: Path, memory_every_s: float | None = None) -> tuple[Took, dict[str, int]]:
    """Plan once, and return what it took and the counts."""
    command = [
        Path(sys.executable).with_name("ssd-batch"), "infer", "--input", folder / "listing.parquet", "--table", folder / "table",
        "--model", PACKAGE, "--dry-run", "--json",
    ]  # fmt: skip
    took = measure(command, memory_every_s)
    return took, json.loads(took.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--num-images", type=int, nargs="+", default=[1_000_000], help="sizes of the listing to measure"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one that reads memory")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    lines: list[str] = []
    figures: dict[str, object] = {}
    for num_images in options.num_images:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            make(Path(name), num_images)
            first, counts = plan(Path(name), LOOK_INTERVAL_S)
            times = [plan(Path(name))[0] for _ in range(options.rounds)]
        seconds, cpu_s = [took.seconds for took in times], [took.cpu_s for took in times]
        peak_mib = first.peak_bytes / 2**20
        lines.append(
            f"{counts['listed']:>11,} listed, {counts['planned']:>9,} planned: {spread(seconds, 1)} s, CPU {spread(cpu_s, 1)} s, "
            f"{peak_mib:,.0f} MiB at most"
        )
        figures[str(num_images)] = {
            "planned": counts["planned"], "seconds": seconds, "cpu_s": cpu_s, "peak_mib": peak_mib,
        }  # fmt: skip
    report(lines, {"plans": figures}, options.json)


if __name__ == "__main__":
    main()
