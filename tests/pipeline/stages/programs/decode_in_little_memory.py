"""Decode a block of images in a process whose memory is limited, and print what failed."""

import resource
import sys
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.stages.fetch import fetch_and_decode

batch = pq.read_table(sys.argv[1])
list(fetch_and_decode(batch.slice(0, 1), 64, 10**9))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (128 << 20),) * 2)
print(
    [{name: image.get(name) for name in ("error_stage", "error_type")} for image in fetch_and_decode(batch, 64, 10**9)]
)
