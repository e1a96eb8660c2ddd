"""What all processes of `pipeline.stages.local` need, imported once by the server that forks them."""

from pipeline.stages.server import ignore_stops

ignore_stops()

import pipeline.stages.detect  # noqa: E402
import pipeline.stages.fetch  # noqa: E402, F401
