import pytest
from pydantic import ValidationError

from pipeline.inference.settings import CanarySettings, InferSettings
from pipeline.settings import DetectionSettings

INFER = {"input": ("in",), "table": "table", "model": "model"}
CANARY = {"input": ("in",), "model": "new", "against": "old"}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            InferSettings,
            INFER | {"max_cost": 5},
            "max_cost 5 can't be checked without a price; give price_per_node_hour",
        ),
        (InferSettings, INFER | {"max_failed_share": 1.1}, "max_failed_share"),
        (DetectionSettings, {"min_detectors": 2}, "min_detectors 2 needs a num_detectors of as many or more"),
        (DetectionSettings, {"min_detectors": 3, "num_detectors": 2}, "min_detectors 3 needs"),
        (
            CanarySettings,
            CANARY | {"address": "auto"},
            "nodes of address 'auto' can't reach a temporary table; give table",
        ),
    ],
)
def test_what_can_not_be(kind, settings, message):
    with pytest.raises(ValidationError, match=message):
        kind(**settings)


def test_what_goes_together():
    assert InferSettings(**INFER, max_cost=5, price_per_node_hour=1).max_cost == 5
    assert DetectionSettings(min_detectors=2, num_detectors=2).min_detectors == 2
    assert CanarySettings(**CANARY, address="auto", table="s3://bucket/table").sample == 1000
