import multiprocessing

import pytest
import ray

from pipeline.cluster.capacity import num_detectors_that_fit
from pipeline.cluster.connect import cluster
from pipeline.settings import DetectionSettings

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_a_machine_of_one_core_is_taken_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one, reading would wait for ever for the core that the detector books a half of."""
    monkeypatch.setattr(multiprocessing, "cpu_count", lambda: 1)
    with cluster("local"):
        assert ray.cluster_resources()["CPU"] == 2
        assert num_detectors_that_fit(DetectionSettings()) == 2
