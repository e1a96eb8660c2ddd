import multiprocessing

import pytest
import ray

from pipeline.cluster import cluster, wait_until_they_fit
from pipeline.errors import SettingError

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_a_machine_of_one_core_is_taken_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one, reading would wait for ever for the core that the detector books a half of."""
    monkeypatch.setattr(multiprocessing, "cpu_count", lambda: 1)
    with cluster("local"):
        assert ray.cluster_resources()["CPU"] == 2
        wait_until_they_fit(0, "local")
        wait_until_they_fit(2, "local")
        with pytest.raises(SettingError, match="num_detectors: of 3 the cluster as it is takes 2"):
            wait_until_they_fit(3, "local")
