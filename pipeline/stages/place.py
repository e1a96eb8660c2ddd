"""Where the work on images is done: by processes of this machine, or on a Ray cluster. Quick to import."""

import sys
from contextlib import AbstractContextManager, nullcontext

from pipeline.machine import num_local_gpus
from pipeline.settings import LOCAL, ClusterSettings


def works_here(settings: ClusterSettings) -> bool:
    """Decide who works: processes of this machine, or Ray.

    Ray works where an address names a cluster or asks for one, inside of a cluster that was entered, and on a machine with GPUs.
    """
    ray = sys.modules.get("ray")
    is_in_cluster = ray is not None and ray.is_initialized()
    return settings.address == LOCAL and not is_in_cluster and not num_local_gpus()


def place(settings: ClusterSettings) -> AbstractContextManager[None]:
    """Return the Ray cluster that a run works on, to be entered; nothing is there to enter for processes of this machine."""
    if works_here(settings):
        return nullcontext()
    from pipeline.cluster.connect import cluster

    return cluster(settings.address)
