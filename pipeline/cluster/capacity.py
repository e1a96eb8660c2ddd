"""The capacity of a Ray cluster: detectors, GPUs, and the wait for nodes that are not there yet."""

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
"""The cores that Ray books for a worker, for a detector with a GPU, and for a process that runs an image alone.

A worker reads, decodes and detects, and leaves room on its core for a process that runs an image alone. Other tasks decode next to a
detector with a GPU.
"""
LOOK_INTERVAL_S = 0.5

Bundle = dict[str, float]
"""The resources that must be on one node."""


def num_nodes() -> int:
    """Return the number of nodes of the cluster that was entered, at this time."""
    return len(_nodes())


def num_gpus() -> int:
    """Return the number of GPUs of the cluster that was entered, at this time."""
    return int(_total("GPU"))


def cluster_cores() -> int:
    """Return the number of cores of the cluster that was entered, at this time."""
    return int(_total("CPU"))


def num_detectors_that_fit(settings: DetectionSettings) -> int:
    """Count the detectors that the nodes have room for.

    Without GPUs, each core takes one detector with all its work. With GPUs, each GPU takes `detectors_per_gpu`. However the detectors are
    placed, they leave a whole core of some node for reading and decoding.
    """
    cores = [node["Resources"].get("CPU", 0.0) for node in _nodes()]
    if not num_gpus():
        return sum(map(int, cores))
    return min(
        num_gpus() * settings.detectors_per_gpu,
        max(0, int((sum(cores) - sum(on_node > 0 for on_node in cores)) / DETECTOR_CPUS)),
    )


def wait_until_they_fit(settings: DetectionSettings) -> None:
    """Wait until the cluster has room for the detectors that must be there. A cluster with GPUs needs room for reading, too.

    Raises:
        SettingError: the cluster has no room after `node_wait_s`.
    """
    needed = settings.min_detectors or settings.num_detectors or 1
    share = 1 / settings.detectors_per_gpu
    detector = {"CPU": DETECTOR_CPUS, "GPU": share} if settings.require_gpu else {"CPU": 1.0}
    reading = [{"CPU": 1.0}] if settings.require_gpu else []
    wait_for_room(settings, lambda: _lacks_room(settings, needed), [*reading, *[detector] * needed])


def wait_for_room(settings: ClusterSettings, lacks_room: Callable[[], str | None], bundles: list[Bundle]) -> None:
    """Wait for nodes, and for a GPU if one is required. A cluster of our own never grows, so nothing is waited for.

    Args:
        settings: the seconds to wait, the address, and whether a GPU is required.
        lacks_room: returns what is missing, or None.
        bundles: the resources that an autoscaler is asked for.

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
    """Ask an autoscaler for nodes: it starts them for a placement group that waits. The group ends with this process at the latest."""
    group = placement_group(bundles)
    try:
        yield
    finally:
        remove_placement_group(group)


def _lacks_gpu(settings: ClusterSettings) -> str | None:
    if not settings.require_gpu or num_gpus():
        return None
    return (
        f"require_gpu: none of the cluster's {num_nodes()} nodes has a GPU; start one that has (ray start --num-gpus), wait longer for "
        "it (node_wait_s), or leave require_gpu out"
    )


def _lacks_room(settings: DetectionSettings, needed: int) -> str | None:
    if needed <= (fitting := num_detectors_that_fit(settings)):
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
