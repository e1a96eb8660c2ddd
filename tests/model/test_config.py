import pytest
from pydantic import ValidationError

from model.config import Architecture, Thresholds, TrainingSettings


def test_boxes_a_cell():
    assert Architecture().num_default_boxes_a_cell == (4, 6, 6, 6, 4, 4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("aspect_ratios", ((2,),), "aspect_ratios has 1 entries; give 6"),
        ("scales", (0.1, 0.2), "scales has 2 entries; give 7"),
        ("steps_px", (8,) * 7, "steps_px has 7 entries; give 6"),
    ],
)
def test_one_entry_a_map(field, value, message):
    with pytest.raises(ValidationError, match=message):
        Architecture(**{field: value})


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (Architecture, "width", 0),
        (Architecture, "kind", "ssd512"),
        (Thresholds, "score_thresh", -0.1),
        (Thresholds, "nms_thresh", 1.1),
        (Thresholds, "topk_candidates", 0),
        (TrainingSettings, "batch_size", 0),
        (TrainingSettings, "momentum", 1),
        (TrainingSettings, "num_workers", -1),
    ],
)
def test_bounds(settings, field, value):
    with pytest.raises(ValidationError, match=field):
        settings(**{field: value})


def test_unknown_fields_are_errors_and_records_do_not_change():
    with pytest.raises(ValidationError, match="score_threshold"):
        Thresholds(score_threshold=0.5)
    with pytest.raises(ValidationError, match="frozen"):
        Thresholds().score_thresh = 0.5
