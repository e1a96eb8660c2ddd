from datetime import date

import pytest

from jobs.text.report import describe_shift
from pipeline.report.drift import Shift

SHIFT = Shift("class_share", "ring", 0.081, 0.149, 5, "r6", date(2026, 11, 24), 9.0)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({}, "ring: share of boxes: 8.1%, and 14.9% in the 5 runs before; began on 24 Nov 2026"),
        (
            {"places": (("camera", "7"), ("site", ""))},
            "ring: share of boxes: 8.1%, and 14.9% in the 5 runs before; began on 24 Nov 2026; mostly camera 7; mostly site (none)",
        ),
        (
            {"quantity": "boxes_per_image", "class_name": None, "now": 3.456, "before": 2, "num_before": 1},
            "boxes per image: 3.46, and 2.00 in the run before; began on 24 Nov 2026",
        ),
        (
            {"quantity": "failed_share"},
            "images that failed: 8.1%, and 14.9% in the 5 runs before; began on 24 Nov 2026",
        ),
        ({"quantity": "mean_score"}, "ring: mean score: 0.08, and 0.15 in the 5 runs before; began on 24 Nov 2026"),
    ],
)
def test_changes_in_words(changed, text):
    assert describe_shift(Shift(**{**vars(SHIFT), **changed})) == text
