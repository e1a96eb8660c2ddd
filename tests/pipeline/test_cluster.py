import multiprocessing

import pytest
import ray

from pipeline.cluster import cluster
from pipeline.errors import SettingError
from pipeline.stream import check_cores

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_a_machine_of_one_core_is_taken_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one, reading would wait for ever for the core that the detector books a half of."""
    monkeypatch.setattr(multiprocessing, "cpu_count", lambda: 1)
    with cluster("local"):
        assert ray.cluster_resources()["CPU"] == 2
        check_cores(2, num_detectors=2)
        with pytest.raises(SettingError, match="num_detectors: 3 on 2 cores of 1 nodes leave less than a core"):
            check_cores(2, num_detectors=3)
