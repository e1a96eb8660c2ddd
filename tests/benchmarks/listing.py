"""Measure the listing of a bucket, as a run does it, next to a paginator of botocore and to `find` of s3fs.

The server makes up its pages by a formula (`s3_pages`), because moto takes longer for a page than any client. It measures the
client alone; `--latency-ms` adds what a store takes to answer. `--server moto` and `ceph` list keys that are stored there first.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pyarrow.parquet as pq

from pipeline.inputs.listing import list_inputs
from pipeline.storage import s3, s3_listing
from tests import conftest
from tests.benchmarks.s3_pages import LAYOUTS
from tests.benchmarks.sides import TICKS_PER_S, report, sides_of, spread

PREFIX = "images/"
ACCESS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


def with_ssd_batch(bucket: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "listing.parquet"
        list_inputs((f"s3://{bucket}/{PREFIX}",), all_files=False, path=path)
        return int(pq.read_metadata(path).num_rows)


def with_botocore(bucket: str) -> int:
    client = botocore.session.get_session().create_client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX)
    return len([(entry["Key"], entry["ETag"], entry["Size"]) for page in pages for entry in page["Contents"]])


def with_s3fs(bucket: str) -> int:
    return len(s3.filesystem().find(f"{bucket}/{PREFIX}", detail=True))


SIDES: dict[str, Callable[[str], int]] = {
    "ssd-batch": with_ssd_batch, "botocore": with_botocore, "s3fs": with_s3fs,
}  # fmt: skip


def list_here(side: str, bucket: str) -> dict[str, float]:
    """List a bucket in this process, after what a process does once."""
    s3_listing.client(), s3.filesystem().connect()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    num_keys = SIDES[side](bucket)
    return {
        "num_keys": num_keys, "seconds": time.perf_counter() - began_s, "cpu_s": time.process_time() - began_cpu_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


@contextmanager
def made_up(num_keys: int, latency_ms: float) -> Iterator[tuple[dict[str, str], int]]:
    """Start the server of made-up pages. Give the environment that reaches it, and its process."""
    command = [sys.executable, "-m", "tests.benchmarks.s3_pages", str(num_keys), str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield {"AWS_ENDPOINT_URL_S3": server.stdout.readline().strip(), **ACCESS}, server.pid
        server.kill()


@contextmanager
def stored(server: str, layouts: list[str], num_keys: int) -> Iterator[tuple[dict[str, str], int]]:
    """Start moto or Ceph, and store the keys there."""
    with getattr(conftest, server)() as variables:
        os.environ.update(variables)
        client = botocore.session.get_session().create_client("s3")
        for layout in layouts:
            client.create_bucket(Bucket=layout)
            names = (LAYOUTS[layout](number, num_keys) for number in range(num_keys))
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(lambda name, bucket=layout: client.put_object(Bucket=bucket, Key=name), names))
        yield variables, 0


def cpu_s_of(pid: int) -> float:
    """Return the CPU seconds of a process so far; 0 for the process 0. Source: proc_pid_stat(5)."""
    if not pid:
        return 0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def list_apart(side: str, layout: str, variables: dict[str, str], server: int) -> dict[str, float]:
    """List a bucket in a process of its own. Add the share of the time for which the server worked."""
    before_s = cpu_s_of(server)
    command = [sys.executable, "-m", "tests.benchmarks.listing", "--here", side, layout]
    done = subprocess.run(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True)
    took: dict[str, float] = json.loads(done.stdout)
    return took | {"server_share": (cpu_s_of(server) - before_s) / took["seconds"]}


def line_of(
    layout: str, side: str, rounds: list[dict[str, float]], others: list[dict[str, float]]
) -> tuple[str, dict[str, Any]]:
    """Return the line for people, and the figures, of a side."""
    speeds = [took["num_keys"] / took["seconds"] for took in rounds]
    cpu_s = [took["cpu_s"] / took["num_keys"] * 1e6 for took in rounds]
    ratios = [other["seconds"] / took["seconds"] for took, other in zip(rounds, others, strict=False)]
    cpu_ratios = [other["cpu_s"] / took["cpu_s"] for took, other in zip(rounds, others, strict=False)]
    peak_mib = max(took["peak_mib"] for took in rounds)
    figures = {
        "keys_per_s": speeds,
        "cpu_s_per_million": cpu_s,
        "ratio": ratios,
        "cpu_ratio": cpu_ratios,
        "peak_mib": peak_mib,
    }
    times = f"{spread(ratios, 1)} times botocore's; " if ratios else ""
    return (
        f"{layout:8} {side:10} {spread(speeds, 0)} keys/s; {times}CPU {spread(cpu_s, 1)} s per million keys"
        f"{f', {spread(cpu_ratios, 1)} times less' if ratios else ''}; {peak_mib:.0f} MiB at most; "
        f"the server works {spread([took['server_share'] for took in rounds])} of the time",
        figures,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--num-keys", type=int, default=200_000, help="keys in each bucket; with moto and ceph, take fewer"
    )
    parser.add_argument("--server", choices=["made-up", "moto", "ceph"], default="made-up")
    parser.add_argument(
        "--latency-ms", type=float, default=0, help="time that the made-up server waits before an answer"
    )
    parser.add_argument(
        "--layouts", type=sides_of(*LAYOUTS), default=["flat", "folders"], help=f"some of {','.join(LAYOUTS)}"
    )
    parser.add_argument("--sides", type=sides_of(*SIDES), default=[*SIDES], help=f"some of {','.join(SIDES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(list_here(*options.here)))
        return
    made = (
        made_up(options.num_keys, options.latency_ms)
        if options.server == "made-up"
        else stored(options.server, options.layouts, options.num_keys)
    )
    took: dict[tuple[str, str], list[dict[str, float]]] = {
        (layout, side): [] for layout in options.layouts for side in options.sides
    }
    with made as (variables, server):
        for _ in range(options.rounds):
            for (layout, side), rounds in took.items():
                rounds.append(list_apart(side, layout, variables, server))
                assert rounds[-1]["num_keys"] == options.num_keys
    lines, figures = (
        [],
        dict[str, object](num_keys=options.num_keys, server=options.server, latency_ms=options.latency_ms),
    )
    for (layout, side), rounds in took.items():
        line, figures[f"{layout} {side}"] = line_of(layout, side, rounds, took.get((layout, "botocore"), []))
        lines.append(line)
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
