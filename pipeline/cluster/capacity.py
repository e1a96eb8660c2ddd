"""What a Ray cluster has room for: detectors, GPUs, and how long nodes are waited for that are not there yet."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from pipeline.errors import SettingError
from pipeline.settings import LOCAL, LOCAL_RAY, ClusterSettings, DetectionSettings

logger = logging.getLogger(__name__)

WORKER_CPUS, DETECTOR_CPUS, ALONE_CPUS = 0.98, 0.5, 0.01
"""Cores that Ray books: for a worker that reads, decodes and detects, which leaves room for what runs an image alone; for a
detector with a GPU, next to which others decode; for what runs an image alone."""
LOOK_INTERVAL_S = 0.5

Bundle = dict[str, float]
"""Resources that must lie on one node."""


def num_nodes() -> int:
    """Of the cluster that we are in, at this time."""
    return len(_nodes())


def num_gpus() -> int:
    """As `num_nodes`."""
    return int(_total("GPU"))


def cluster_cores() -> int:
    """As `num_nodes`."""
    return int(_total("CPU"))


def num_detectors_that_fit() -> int:
    """Count the detectors that the nodes have room for.

    Where there are no GPUs, each core takes one, with all its work. Where there are, each detector takes one, and all of them leave a
    whole core of a node, wherever they are, for reading and decoding.
    """
    cores = [node["Resources"].get("CPU", 0.0) for node in _nodes()]
    if not num_gpus():
        return sum(map(int, cores))
    return min(num_gpus(), max(0, int((sum(cores) - sum(on_node > 0 for on_node in cores)) / DETECTOR_CPUS)))


def wait_until_they_fit(settings: DetectionSettings) -> None:
    """Make sure that the cluster has room for the detectors that must be there, and on clusters with GPUs for reading too.

    Raises:
        SettingError: it has not, and `node_wait_s` has not changed that.
    """
    needed = settings.min_detectors or settings.num_detectors or 1
    detector = {"CPU": DETECTOR_CPUS} | gpu(settings) if settings.require_gpu else {"CPU": 1.0}
    reading = [{"CPU": 1.0}] if settings.require_gpu else []
    wait_for_room(settings, lambda: _lacks_room(needed), [*reading, *[detector] * needed])


def wait_for_room(settings: ClusterSettings, lacks_room: Callable[[], str | None], bundles: list[Bundle]) -> None:
    """Wait for nodes, and a GPU where one is required; unless the cluster is our own, which has all it will ever have.

    Args:
        settings: how long.
        lacks_room: says what is missing.
        bundles: what an autoscaler is asked for.

    Raises:
        SettingError: something is still missing at the end.
    """

    def lacks() -> str | None:
        return _lacks_gpu(settings) or lacks_room()

    if lack := lacks():
        if settings.address not in (LOCAL, LOCAL_RAY) and settings.node_wait_s:
            logger.info("%s; waiting up to %.0f s for nodes", lack, settings.node_wait_s)
            with _asked_for(bundles):
                deadline = time.monotonic() + settings.node_wait_s
                while (lack := lacks()) and time.monotonic() < deadline:
                    time.sleep(LOOK_INTERVAL_S)
        if lack:
            raise SettingError(lack)


@contextmanager
def _asked_for(bundles: list[Bundle]) -> Iterator[None]:
    """Let an autoscaler know: it starts nodes for a placement group that waits. It is gone with this process at the latest."""
    group = placement_group(bundles)
    try:
        yield
    finally:
        remove_placement_group(group)


def gpu(settings: ClusterSettings) -> Bundle:
    """What a detector or a worker books of them, as far as settings tell."""
    return {"GPU": 1} if settings.require_gpu else {}


def _lacks_gpu(settings: ClusterSettings) -> str | None:
    if not settings.require_gpu or num_gpus():
        return None
    return (
        f"require_gpu: none of the cluster's {num_nodes()} nodes has a GPU; start one that has (ray start --num-gpus), wait longer for "
        "it (node_wait_s), or leave require_gpu out"
    )


def _lacks_room(needed: int) -> str | None:
    if needed <= (fitting := num_detectors_that_fit()):
        return None
    return (
        f"num_detectors: of {needed} the cluster as it is takes {fitting}; take fewer, or give Ray more "
        "cores (ray start --num-cpus), and GPUs where it has any"
    )


def _nodes() -> list[dict[str, dict[str, float]]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _total(resource: str) -> float:
    amount: float = ray.cluster_resources().get(resource, 0)  # type: ignore[no-untyped-call]
    return amount
