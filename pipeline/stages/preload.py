"""The imports that all processes of `pipeline.stages.local` need. The server that forks these processes imports this module once."""

from pipeline.stages.server import ignore_stops

ignore_stops()

import pipeline.stages.detect  # noqa: E402
import pipeline.stages.fetch  # noqa: E402, F401
