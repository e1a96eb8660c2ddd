from datetime import UTC, date, datetime

import pytest
from pydantic import ValidationError

from pipeline.inference.settings import CanarySettings, InferSettings
from pipeline.settings import DetectionSettings
from pipeline.table.settings import DeletionSettings

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


@pytest.mark.parametrize("given", ["20260131", 20260131, "2026-01-31", date(2026, 1, 31)])
def test_a_date_may_be_in_the_basic_form(given):
    settings = InferSettings(**INFER, since=given, run_date=given)
    assert (settings.since, settings.run_date) == (datetime(2026, 1, 31, tzinfo=UTC), date(2026, 1, 31))
    assert DeletionSettings(delete_before=given).delete_before == date(2026, 1, 31)


def test_digits_that_are_no_date():
    for name in ("since", "until", "run_date"):
        with pytest.raises(
            ValidationError, match="give a date, or a date and a time, as 2026-01-31 or 2026-01-31T02:00"
        ):
            InferSettings(**INFER, **{name: "2026"})


def test_what_goes_together():
    assert InferSettings(**INFER, max_cost=5, price_per_node_hour=1).max_cost == 5
    assert DetectionSettings(min_detectors=2, num_detectors=2).min_detectors == 2
    assert CanarySettings(**CANARY, address="auto", table="s3://bucket/table").sample == 1000
