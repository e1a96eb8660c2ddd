"""Clusters of several nodes on this machine, some with GPUs in name: Ray only counts what it is told of."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipeline import capacity
from pipeline.capacity import num_cores, num_detectors_that_fit, num_gpus, num_nodes, wait_for_gpu, wait_until_they_fit
from pipeline.cluster import cluster
from pipeline.errors import SettingError
from pipeline.settings import ClusterSettings, DetectionSettings
from tests.chaos.ray_nodes import RayNodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    """A head without cores, and a node with two, which this process joins."""
    with TemporaryDirectory(prefix="n") as folder, pytest.MonkeyPatch.context() as environment:
        nodes = RayNodes(Path(folder), os.environ | {"PYTHONPATH": str(Path.cwd())}, head_cpus=0)
        try:
            nodes.add()
            for name, value in nodes.environment.items():
                environment.setenv(name, value)
            with cluster(nodes.address):
                yield nodes
        finally:
            nodes.stop()


def wait_until(num: int) -> None:
    """So many nodes are there; the test's own timeout ends this where they never come."""
    while num_nodes() < num:
        threading.Event().wait(0.1)


def test_what_lacks_is_waited_for_and_then_told(nodes: RayNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until(2)
    assert (num_cores(), num_gpus(), num_detectors_that_fit()) == (2, 0, 2)
    soon = {"address": nodes.address, "node_wait_s": 1}
    wait_until_they_fit(DetectionSettings(num_detectors=2, **soon))
    wait_until_they_fit(DetectionSettings(min_detectors=2, num_detectors=9, **soon))
    wait_for_gpu(ClusterSettings(**soon))
    with pytest.raises(SettingError, match="num_detectors: of 3 the cluster as it is takes 2"):
        wait_until_they_fit(DetectionSettings(num_detectors=3, **soon))
    for wait in (wait_for_gpu, wait_until_they_fit):
        with pytest.raises(SettingError, match="require_gpu: none of the cluster's 2 nodes has a GPU"):
            wait(DetectionSettings(require_gpu=True, **soon))

    with monkeypatch.context() as never:
        never.setattr(capacity, "_asked_for", None)
        with pytest.raises(SettingError, match="require_gpu"):
            wait_for_gpu(ClusterSettings(require_gpu=True, address=nodes.address, node_wait_s=0))

    nodes.add(num_gpus=1)
    long = {"address": nodes.address, "node_wait_s": 300}
    wait_until_they_fit(DetectionSettings(require_gpu=True, **long))
    assert (num_nodes(), num_cores(), num_gpus()) == (3, 4, 1)
    assert num_detectors_that_fit() == 1, "each takes a GPU"
    with pytest.raises(SettingError, match="num_detectors: of 2 the cluster as it is takes 1"):
        wait_until_they_fit(DetectionSettings(num_detectors=2, **soon))
