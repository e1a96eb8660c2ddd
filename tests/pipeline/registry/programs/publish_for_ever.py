"""Publish one package after another, until killed; print each number before."""

import itertools
import sys

from pipeline.registry.publish import publish

for number in itertools.count():
    print(number, flush=True)
    publish(sys.argv[1], f"{sys.argv[2]}/{number}", "latest")
