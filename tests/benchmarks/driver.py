"""Measure the process that starts a run: how many images it can take and commit per second of its CPU time: `make bench driver`.

Torch-free workers make the rows from a formula (`tests.benchmarks.formula`); they go through the real runner, accounting, commits and table.
The other side is a bare loop that writes the same blocks into Parquet files. `ray-gpu` is Ray told of GPUs, so that pixels pass between processes.
`--block-rows 4 --num-images 80000 --sides ray` shows by how much memory grows per block.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo import PACKAGE
from pipeline.inference.settings import InferSettings
from pipeline.stages.rows import PlanRows
from pipeline.stages.runner import Stages
from pipeline.table.schema import SCHEMA
from tests.benchmarks.formula import NUM_DETECTIONS, Cost, FormulaWorker, run_by_formula
from tests.benchmarks.sides import report, sides_of, spread

BARE_ROWS, FILE_BLOCKS = 1024, 128
"""The rows of a block of the bare loop, and the blocks of a file: as many as a commit of a fast run has."""
NUM_GPUS = 2
ADDRESSES = {"local": "local", "ray": "local-ray", "ray-gpu": "local-ray"}
SIDES = ("bare", *ADDRESSES)
MIB = 2**20

LISTING = """
    SELECT format('/photos/site-{:03d}/2026-{:02d}/image-{:09d}.jpg', i % 50, 1 + i % 12, i) AS uri, md5(i::VARCHAR) AS etag,
        20000 + i % 5000 AS size_bytes, TIMESTAMPTZ '2026-01-01' + to_seconds(i) AS last_modified
    FROM range(?) AS numbers(i)
"""


def write_bare(listing: Path, folder: Path, num_images: int, num_detections: int) -> Cost:
    """Write blocks of rows, which are there already, into Parquet files."""
    os.environ[NUM_DETECTIONS] = str(num_detections)
    constants = {"model_name": "demo", "model_digest": "0" * 64, "run_id": "r1", "run_date": date(2026, 1, 1)}
    worker = FormulaWorker(
        Stages(PlanRows(str(listing)), lambda rows: iter(()), pa.schema([]), {}, 8, constants, SCHEMA), "d1"
    )
    num_rows = min(num_images, BARE_ROWS * FILE_BLOCKS)
    starts = range(0, num_rows, BARE_ROWS)
    blocks = [worker((start, min(start + BARE_ROWS, num_rows))).select(SCHEMA.names) for start in starts]
    folder.mkdir()
    cost, began_s, began_cpu_s = Cost(), time.monotonic(), time.process_time()
    while cost.num_images < num_images:
        with pq.ParquetWriter(folder / f"{cost.num_images}.parquet", SCHEMA) as file:
            for block in blocks:
                file.write_table(block)
                cost.num_blocks += 1
                cost.num_images += block.num_rows
    cost.wall_s, cost.cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    return cost


def in_a_process(function: Callable[[], Cost]) -> Cost:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function).result()


def cost_of(side: str, listing: Path, place: Path, options: argparse.Namespace) -> Cost:
    """Measure a side once."""
    if side == "bare":
        return in_a_process(partial(write_bare, listing, place, options.num_images, options.detections))
    settings = InferSettings(
        input=(str(listing),), table=str(place), model=str(PACKAGE), address=ADDRESSES[side],
        commit_interval_s=options.commit_interval_s,
    )  # fmt: skip
    num_gpus = NUM_GPUS if side == "ray-gpu" else 0
    return in_a_process(
        partial(run_by_formula, settings, num_gpus, options.detections, options.cut_as, options.block_rows)
    )


def at_start_middle_and_end(memory: list[tuple[int, int]]) -> list[float]:
    """Return the MiB at three times."""
    return [memory[number][1] / MIB for number in (0, len(memory) // 2, -1)]


def line(side: str, costs: list[Cost], bare: list[Cost], num_detections: int) -> tuple[str, dict[str, object]]:
    """Return a side's line for people, and its figures."""
    rates = [cost.num_images / cost.cpu_s for cost in costs]
    ratios = [rate / (one.num_images / one.cpu_s) for rate, one in zip(rates, bare, strict=False)]
    walls = [cost.num_images / cost.wall_s for cost in costs]
    figures: dict[str, object] = {
        "images_per_cpu_s": rates, "detections_per_cpu_s": [rate * num_detections for rate in rates], "of_bare": ratios,
        "images_per_s": walls, "block_rows": costs[0].num_images / costs[0].num_blocks,
    }  # fmt: skip
    text = (
        f"{side:8} {spread(rates, 0)} images, {median(rates) * num_detections:.0f} detections per CPU second of the driver; "
        f"{spread(ratios) if ratios else '–'} of bare; {spread(walls, 0)} images/s"
    )
    if side != "bare":
        per_block_ms = [cost.cpu_s / cost.num_blocks * 1000 for cost in costs]
        memory_mib = [at_start_middle_and_end(cost.memory) for cost in costs]
        growths = [cost.growth_bytes() for cost in costs]
        figures |= {"cpu_ms_per_block": per_block_ms, "memory_mib": memory_mib, "growth_bytes_per_block": growths}
        text += (
            f"; {spread(per_block_ms, 1)} ms per block of {figures['block_rows']:.0f}; "
            f"memory {' → '.join(f'{mib:.0f}' for mib in memory_mib[-1])} MiB"
        )
        if known := [growth for growth in growths if growth is not None]:
            text += f", {spread(known, 0)} bytes per block"
    return text, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-images", type=int, default=300_000)
    parser.add_argument("--detections", type=int, default=10, help="detections per image")
    parser.add_argument("--cut-as", type=int, default=100_000_000, help="cut blocks as in a run of this many images")
    parser.add_argument("--block-rows", type=int, help="rows per block instead")
    parser.add_argument("--commit-interval-s", type=float, default=5.0, help="seconds between commits")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", type=sides_of(*SIDES), default=SIDES, help=f"some of {','.join(SIDES)}")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    costs: dict[str, list[Cost]] = {side: [] for side in options.sides}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with duckdb.connect() as db:
            pq.write_table(db.sql(LISTING, params=[options.num_images]).to_arrow_table(), folder / "listing.parquet")
        for number in range(options.rounds):
            for side in costs:
                place = folder / f"{side}-{number}"
                costs[side].append(cost_of(side, folder / "listing.parquet", place, options))
    figures: dict[str, object] = {"num_images": options.num_images, "detections_per_image": options.detections}
    lines = []
    for side in costs:
        text, figures[side] = line(side, costs[side], costs.get("bare", []), options.detections)
        lines.append(text)
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
