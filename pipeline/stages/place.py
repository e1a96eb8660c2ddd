"""The choice between processes of this machine and a Ray cluster for the work on images. This module is quick to import."""

import sys
from contextlib import AbstractContextManager, nullcontext

from pipeline.machine import num_local_gpus
from pipeline.settings import LOCAL, ClusterSettings


def works_here(settings: ClusterSettings) -> bool:
    """Is the work done by processes of this machine, and not by Ray?

    Ray works if an address names a cluster or asks for one, inside a cluster that was entered, and on a machine with GPUs.
    """
    ray = sys.modules.get("ray")
    is_in_cluster = ray is not None and ray.is_initialized()
    return settings.address == LOCAL and not is_in_cluster and not num_local_gpus()


def place(settings: ClusterSettings) -> AbstractContextManager[None]:
    """Return the Ray cluster that a run works on, to be entered. Processes of this machine need no cluster: the context is empty."""
    if works_here(settings):
        return nullcontext()
    from pipeline.cluster.connect import cluster

    return cluster(settings.address)
