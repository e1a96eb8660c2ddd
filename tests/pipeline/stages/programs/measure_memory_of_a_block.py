"""Fetch and decode a block of images, and print how much the peak of memory rose."""

import resource
import sys

import pyarrow.parquet as pq

from pipeline.stages.fetch import fetch_and_decode


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


batch = pq.read_table(sys.argv[1])
list(fetch_and_decode(batch.slice(0, 1), 64, 1000))
before = peak_bytes()
assert {image["error_stage"] for image in fetch_and_decode(batch, 64, 1000)} == {"decode"}
print(peak_bytes() - before)
