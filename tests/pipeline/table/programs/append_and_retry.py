"""Append blocks of rows, and replace some of them, as a run does."""

import sys
import time
from datetime import UTC, date, datetime

import pyarrow as pa

from pipeline.table.commit import Committer
from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence
from pipeline.table.schema import IS_RETRY

url, num_blocks, block_rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
table = ResultTable(url)


def block(number, num_attempts):
    shared = {"etag": "v1", "model_digest": "m1", "run_date": date(2026, 1, 2), "processed_at": datetime.now(UTC)}
    status = {"status": "failed" if number % 5 == 0 and num_attempts == 1 else "ok", "num_attempts": num_attempts}
    rows = [{"uri": f"{number}-{row}"} | shared | status for row in range(block_rows)]
    is_retry = pa.array([num_attempts > 1] * block_rows)
    return pa.Table.from_pylist(rows, schema=table.schema).append_column(IS_RETRY, is_retry)


fence = Fence(table, "r1", 60)
with fence.held(), Committer(table, fence, 0.02) as committer:
    for number in range(num_blocks):
        committer.put(block(number, 1))
        time.sleep(0.05)
        if number % 5 == 4:
            committer.put(block(number - 4, 2))
