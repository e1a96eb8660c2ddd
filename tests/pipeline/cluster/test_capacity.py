import os

import pytest

from pipeline.cluster.capacity import (
    cluster_cores,
    num_detectors_that_fit,
    num_gpus,
    num_nodes,
    wait_for_room,
    wait_until_they_fit,
)
from pipeline.errors import SettingError
from pipeline.settings import ClusterSettings, DetectionSettings
from pipeline.training.driver import wait_for_workers
from pipeline.training.settings import ClusterTraining

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")]


def test_our_own_cluster_has_all_it_will_ever_have(local_cluster: None) -> None:
    """Nothing is waited for: this test would not end within its timeout."""
    assert (num_nodes(), cluster_cores(), num_gpus()) == (1, max(2, os.cpu_count() or 1), 0)
    fitting, long = num_detectors_that_fit(DetectionSettings()), {"node_wait_s": 86_400}
    assert fitting == cluster_cores()
    wait_until_they_fit(DetectionSettings())
    wait_until_they_fit(DetectionSettings(num_detectors=fitting, **long))
    wait_until_they_fit(DetectionSettings(min_detectors=fitting, num_detectors=fitting + 1, **long))
    wait_for_room(ClusterSettings(**long), lambda: None, [])
    with pytest.raises(SettingError, match=f"num_detectors: of {fitting + 1} the cluster as it is takes {fitting}"):
        wait_until_they_fit(DetectionSettings(num_detectors=fitting + 1, **long))
    no_gpu = "require_gpu: none of the cluster's 1 nodes has a GPU"
    with pytest.raises(SettingError, match=no_gpu):
        wait_until_they_fit(DetectionSettings(require_gpu=True, **long))
    with pytest.raises(SettingError, match=no_gpu):
        wait_for_workers(ClusterTraining(require_gpu=True, **long))
