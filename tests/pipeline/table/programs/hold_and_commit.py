"""Hold a table and commit rows, as a run does; print what was held and committed."""

import sys
import time

import pyarrow as pa

from pipeline.errors import HeldError, OvertakenError
from pipeline.storage import store
from pipeline.table import fence as fence_module
from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence

fence_module.SHORTEST_WATCH_S, store.table_patience_s = 0, lambda url: 0
url, run_id, interval_s, num_commits, take_over = sys.argv[1:]
table = ResultTable(url)
fence = Fence(table, run_id, float(interval_s))
print("ready", flush=True)
sys.stdin.readline()
try:
    fence.hold(take_over == "True")
    print("held", flush=True)
    for number in range(int(num_commits)):
        row = {"uri": f"{run_id}-{number}", "num_attempts": 1}
        rows = pa.Table.from_pylist([row], schema=table.schema)
        fence.commit(lambda properties, rows=rows: table.append(rows, properties))
        print(row["uri"], flush=True)
        time.sleep(0.02)
    sys.stdin.readline()
    fence.release()
except (HeldError, OvertakenError) as error:
    print(type(error).__name__, flush=True)
    sys.exit(error.exit_code)
