import pytest
from pydantic import ValidationError

from model.config import Architecture, Thresholds, TrainingSettings


def test_boxes_a_cell():
    assert Architecture().num_default_boxes_a_cell == (4, 6, 6, 6, 4, 4)
    assert Architecture(kind="ssd512_vgg16").num_default_boxes_a_cell == (4, 6, 6, 6, 6, 4, 4)


def test_the_kind_decides_what_is_not_given():
    architecture = Architecture(kind="ssd512_vgg16", steps_px=(8, 16, 32, 64, 128, 256, 500))
    assert architecture.image_size_px == 512
    assert architecture.scales == (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05)
    assert architecture.aspect_ratios == ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,))
    assert architecture.steps_px[-1] == 500


def test_scales_of_ssd512_are_its_authors():
    """Their script for Pascal VOC: 7 % for conv4_3, then from 15 % to 90 % in whole steps of 75 // 5 %."""
    percent = [7, *range(15, 90 + 1, (90 - 15) // 5), 105]
    assert Architecture(kind="ssd512_vgg16").scales == tuple(each / 100 for each in percent)


@pytest.mark.parametrize("kind", ["ssd300_vgg16", "ssd512_vgg16"])
def test_an_architecture_is_the_same_after_json(kind):
    architecture = Architecture(kind=kind, width=0.1)
    assert Architecture.model_validate_json(architecture.model_dump_json()) == architecture


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
    ("field", "value", "message"),
    [
        ("aspect_ratios", ((2,),) * 6, "aspect_ratios has 6 entries; give 7"),
        ("scales", (0.1,) * 7, "scales has 7 entries; give 8"),
        ("steps_px", (8,) * 6, "steps_px has 6 entries; give 7"),
    ],
)
def test_one_entry_a_map_of_ssd512(field, value, message):
    with pytest.raises(ValidationError, match=message):
        Architecture(kind="ssd512_vgg16", **{field: value})


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
        (TrainingSettings, "grad_accumulation", 0),
        (TrainingSettings, "seed", -1),
        (TrainingSettings, "schedule", "multistep"),
        (TrainingSettings, "milestones", (100,)),
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
