import math

import pytest
import torch
from torch import Tensor

from model.config import Thresholds
from model.postprocess import Detections, postprocess

# Cells of a made-up network; 0 and 1 overlap by 0.16 of 0.24: IoU 2/3.
DEFAULT_BOXES = torch.tensor(
    [
        [0.30, 0.30, 0.4, 0.4],
        [0.38, 0.30, 0.4, 0.4],
        [0.80, 0.80, 0.2, 0.2],
        [0.95, 0.05, 0.3, 0.3],  # over the upper right corner
    ]
)
SIZE_PX = torch.tensor([[200.0, 100.0]])


def detect(scores: list[list[float]], **thresholds: float) -> Detections:
    """Detections of one image of 200×100 px from scores of two classes for each default box."""
    logits = torch.tensor([[[math.log(1 - sum(row)), *map(math.log, row)] for row in scores]])
    offsets = torch.zeros(1, len(scores), 4)
    (found,) = postprocess(offsets, logits, DEFAULT_BOXES[: len(scores)], SIZE_PX, Thresholds(**thresholds))
    return found


def assert_scores(found: Detections, *scores: float) -> None:
    torch.testing.assert_close(found.scores, torch.tensor(scores))


def test_boxes_are_pixels_of_the_original_best_first():
    found = detect([[0.2, 0.001], [0.001, 0.002], [0.001, 0.9]])
    assert_scores(found, 0.9, 0.2)
    assert found.labels.tolist() == [2, 1]
    torch.testing.assert_close(found.boxes_xyxy, torch.tensor([[140.0, 70.0, 180.0, 90.0], [20.0, 10.0, 100.0, 50.0]]))


def test_one_default_box_may_be_two_classes():
    found = detect([[0.4, 0.5]])
    assert found.labels.tolist() == [2, 1]
    assert torch.equal(found.boxes_xyxy[0], found.boxes_xyxy[1])


def test_score_must_be_above_the_threshold():
    logits = torch.zeros(1, 1, 2)  # both classes score exactly 0.5
    for score_thresh, count in ((0.5, 0), (0.499, 1)):
        thresholds = Thresholds(score_thresh=score_thresh)
        (found,) = postprocess(torch.zeros(1, 1, 4), logits, DEFAULT_BOXES[:1], SIZE_PX, thresholds)
        assert len(found.scores) == count


def test_suppression_is_within_a_class():
    same_class = detect([[0.6, 0.001], [0.5, 0.001]])
    assert_scores(same_class, 0.6)
    two_classes = detect([[0.6, 0.001], [0.001, 0.5]])
    assert_scores(two_classes, 0.6, 0.5)
    assert two_classes.labels.tolist() == [1, 2]


@pytest.mark.parametrize(("nms_thresh", "count"), [(0.66, 1), (0.67, 2)])
def test_suppression_is_above_the_threshold(nms_thresh, count):
    assert len(detect([[0.6, 0.001], [0.5, 0.001]], nms_thresh=nms_thresh).scores) == count


def test_topk_candidates_are_a_class():
    scores = [[0.6, 0.3], [0.001, 0.002], [0.4, 0.5]]
    assert_scores(detect(scores), 0.6, 0.5, 0.4, 0.3)
    assert_scores(detect(scores, topk_candidates=1), 0.6, 0.5)


def test_topk_candidates_are_taken_before_suppression():
    scores = [[0.6, 0.001], [0.5, 0.001], [0.4, 0.001]]
    assert_scores(detect(scores, topk_candidates=2), 0.6)
    assert_scores(detect(scores, topk_candidates=3), 0.6, 0.4)


def test_detections_per_img_are_of_all_classes():
    assert_scores(detect([[0.6, 0.3], [0.001, 0.002], [0.4, 0.5]], detections_per_img=3), 0.6, 0.5, 0.4)


def test_boxes_are_clipped_to_the_image():
    found = detect([[0.001, 0.001], [0.001, 0.001], [0.001, 0.001], [0.9, 0.001]])
    torch.testing.assert_close(found.boxes_xyxy, torch.tensor([[160.0, 0.0, 200.0, 20.0]]))


def test_nothing_found():
    found = detect([[0.001, 0.001]])
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.labels.shape == (0,)
    assert found.labels.dtype == torch.int64


def test_no_images():
    empty = torch.zeros(0, 4, 4), torch.zeros(0, 4, 3)
    assert postprocess(*empty, DEFAULT_BOXES, torch.zeros(0, 2), Thresholds()) == []


def test_each_image_has_its_own_size():
    offsets, logits = torch.zeros(2, 1, 4), torch.tensor([0.0, 5.0]).expand(2, 1, 2)
    sizes_px = torch.tensor([[100.0, 100.0], [300.0, 600.0]])
    first, second = postprocess(offsets, logits, DEFAULT_BOXES[:1], sizes_px, Thresholds())
    scale = torch.tensor([3.0, 6.0, 3.0, 6.0])
    torch.testing.assert_close(second.boxes_xyxy, first.boxes_xyxy * scale)


def test_half_precision_heads_are_decoded_in_full():
    offsets: Tensor = torch.zeros(1, 1, 4, dtype=torch.bfloat16)
    logits = torch.tensor([[[0.0, 5.0]]], dtype=torch.bfloat16)
    (found,) = postprocess(offsets, logits, DEFAULT_BOXES[:1], SIZE_PX, Thresholds())
    assert found.scores.dtype == found.boxes_xyxy.dtype == torch.float32
    assert_scores(found, 1 / (1 + math.exp(-5)))


def test_each_class_may_have_a_least_score_of_its_own():
    """It is the same as to leave out lower ones afterwards: a lower one suppresses no better one."""
    scores = [[0.6, 0.3], [0.5, 0.2], [0.3, 0.4]]
    everything, kept = detect(scores), detect(scores, min_scores=(0.55, 0.3))
    least = torch.tensor([0.55, 0.3])
    is_kept = everything.scores >= least[everything.labels - 1] - 1e-6
    assert_scores(kept, 0.6, 0.4, 0.3)
    assert torch.equal(kept.scores, everything.scores[is_kept])
    assert torch.equal(kept.boxes_xyxy, everything.boxes_xyxy[is_kept])
