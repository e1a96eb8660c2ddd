"""Maintain a table once per line of standard input."""

import sys

from pipeline.table.maintain import maintain
from pipeline.table.settings import MaintainSettings

settings = MaintainSettings(table=sys.argv[1])
print("ready", flush=True)
for _ in iter(sys.stdin.readline, ""):
    maintain(settings)
    print("done", flush=True)
